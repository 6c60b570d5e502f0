import Checkpoints
import Core
import Operators
import TaskVectors
import TensorKernels
import Work

/// The canonical encoding of a plan, whose SHA-256 is the plan's digest. It covers everything that decides an output byte, and
/// nothing else: no place on this machine, no label, no cut into shards. Golden digests in `Tests/Planning` hold it fast; who
/// changes what is written here raises `version`.
///
/// Integers are 64 bits, two's complement, little-endian; numbers are the bits of an IEEE double, as such an integer; a flag is
/// one byte, 0 or 1; a text is its number of bytes and its UTF-8; a digest is its 32 bytes; a type is its safetensors name, as a
/// text. `X*` is a count and so many X, `X?` is a flag and X where the flag is 1, and `map` is `(text name, X)*` in byte order of
/// the names. A case of several begins with its tag, one byte.
///
/// ```
/// plan        = version: one byte, integer numericsVersion, input*, part*, tensor*, folder*?       the last only for a sweep
/// folder      = text name
/// input       = text reference, (text file, integer size, digest header)*
/// part        = digest header: the header says where each tensor lies, and what it is
/// tensor      = text name, shape, operation, source*, output*         in the order of stages and shards
/// shape       = integer*
/// output      = text name, type, integer byteCount, integer part, integer offset, integer blockSize
///
/// operation   = 0 merge | 1 encoding | 2 merge, text linearAlgebra | 4 merge, text? linearAlgebra, stage
///               | 8 merge, text? linearAlgebra, integer rank, flag isTransposed
///               16 is added to the tag where a tensor ends with given*
/// given       = text parameter, integer? input, stored
/// stage       = integer round, integer known, integer width, (text name, integer?* prefixes)*     in byte order of the names
/// merge       = text method, value map shared, (value map)* perInput, integer? base, integer? randomKey,
///               text codec, type
/// value       = 0 number | 1 flag | 2 text | 3 number*
///
/// source      = 0 stored | 1 source, lowRank | 2 source base, vector | 3 source* matrices, aligned
///               | 4 source, experts, lowRank | 5 source, lowRank without a | 6 source, stored magnitudes, flag ofRows
///               | 7 source, flag principal, integer rank, number scale, text linearAlgebra
///               | 8 source, shape
/// experts     = integer count, integer? expert, integer firstRow
/// stored      = integer file, integer offset, type, shape             files are counted over all inputs
/// lowRank     = stored a, stored b, integer rank, number scale, flag isTransposed
/// vector      = shape, packed? own, packed? shared, number factor, digest baseSample
/// packed      = format, integer file, integer* offsets
/// aligned     = integer rowLength, (integer rows, origin)*
/// origin      = 0 row | 1 row* mean | 2 zero | 3 padding
/// row         = integer matrix, integer row
///
/// encoding    = 0 quantizer | 1 sparse | 2 masks | 3 compare | 4 grids | 5 magnitudes | 6 sparse, whose kept entries are counted
/// quantizer   = format? shared, flag sharedIsFrozen, flag correctsErrors, format* tasks
/// sparse      = selection, values, integer* kept
/// selection   = 0 integer* largest | 1 number density, integer* keys | 2 integer n, integer m, flag prorates, flag isDisjoint
/// masks       = 0 number* lambdas | 1 emr, then values shared, integer taskCount
/// grids       = format* shared, flag sharedIsFrozen, format* formats
/// magnitudes  = integer?* bins, flag isSecondRound
///
/// format      = 0 zero | 1 values dense | 2 integer kept, values | 3 mask
/// values      = 0 type | 1 grid
/// grid        = integer bits, granularity
/// granularity = 0 tensor | 1 row | 2 integer group
/// ```
struct PlanEncoding: ~Copyable {
    private static let version: UInt8 = 1

    private let hash: SHA256
    private var bytes: [UInt8] = []
    /// What is collected before it is hashed.
    private static let pieceBytes = 1 << 16

    /// The digest of a plan.
    ///
    /// - Parameter folders: of the checkpoints of a sweep.
    /// - Throws: `internal` when libcrypto cannot compute it.
    static func digest(
        of inputs: [PlannedInput], layout: CheckpointLayout, stages: [[PlannedShard]], folders: [String] = []
    ) throws(TesseraError) -> Digest {
        var encoding = try PlanEncoding()
        encoding.tag(version)
        encoding.integer(numericsVersion)
        encoding.list(inputs) { $0.input($1) }
        encoding.list(layout.parts) { $0.digest($1.headerDigest) }
        // Not put together in one list: a plan may have very many tensors.
        encoding.integer(stages.joined().reduce(0) { $0 + $1.tensors.count })
        for shard in stages.joined() { for tensor in shard.tensors { encoding.tensor(tensor) } }
        if !folders.isEmpty { encoding.list(folders) { $0.text($1) } }
        return try encoding.finalize()
    }

    private init() throws(TesseraError) {
        hash = try SHA256()
        bytes.reserveCapacity(Self.pieceBytes + 4096)
    }

    private consuming func finalize() throws(TesseraError) -> Digest {
        hash.update(bytes)
        return try hash.finalize()
    }

    // MARK: Atoms

    mutating func tag(_ tag: UInt8) {
        bytes.append(tag)
        guard bytes.count >= Self.pieceBytes else { return }
        hash.update(bytes)
        bytes.removeAll(keepingCapacity: true)
    }

    mutating func bits(_ bits: UInt64) {
        withUnsafeBytes(of: bits.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func integer(_ integer: Int) { bits(UInt64(bitPattern: Int64(integer))) }

    mutating func number(_ number: Double) { bits(number.bitPattern) }

    mutating func flag(_ flag: Bool) { tag(flag ? 1 : 0) }

    mutating func text(_ text: String) {
        integer(text.utf8.count)
        bytes.append(contentsOf: text.utf8)
    }

    mutating func type(_ type: DType) { text(type.rawValue) }

    mutating func digest(_ digest: Digest) { bytes.append(contentsOf: digest.bytes) }

    mutating func list<Element>(
        _ elements: some Collection<Element>, _ element: (inout PlanEncoding, Element) -> Void
    ) {
        integer(elements.count)
        for each in elements { element(&self, each) }
    }

    mutating func optional<Value>(_ value: Value?, _ encode: (inout PlanEncoding, Value) -> Void) {
        flag(value != nil)
        if let value { encode(&self, value) }
    }

    mutating func integers(_ integers: [Int]) { list(integers) { $0.integer($1) } }

    // MARK: Work

    private mutating func input(_ input: PlannedInput) {
        text(input.reference)
        list(input.parts) { encoding, part in
            encoding.text(part.file)
            encoding.integer(part.size)
            encoding.digest(part.headerDigest)
        }
    }

    private mutating func tensor(_ tensor: TensorWork) {
        text(tensor.name)
        integers(tensor.shape)
        let offset: UInt8 = tensor.given.isEmpty ? 0 : 16
        switch tensor.operation {
        case .merge(let merge):
            tag(offset + (merge.linearAlgebra == nil ? 0 : 2))
            self.merge(merge)
            if let library = merge.linearAlgebra { text(library) }
        case .factor(let merge, let factors):
            tag(offset + 8)
            self.merge(merge)
            optional(merge.linearAlgebra) { $0.text($1) }
            integer(factors.rank)
            flag(factors.isTransposed)
        case .encode(let encoding):
            tag(1)
            self.encoding(encoding)
        case .measure(let merge, let stage):
            tag(offset + 4)
            self.merge(merge)
            optional(merge.linearAlgebra) { $0.text($1) }
            self.stage(stage)
        }
        list(tensor.sources) { $0.source($1) }
        list(tensor.outputs) { $0.output($1) }
        guard !tensor.given.isEmpty else { return }
        list(tensor.given) { encoding, given in
            encoding.text(given.role.parameter)
            encoding.optional(given.role.input) { $0.integer($1) }
            encoding.stored(given.stored)
        }
    }

    private mutating func output(_ output: OutputTensor) {
        text(output.name)
        type(output.dtype)
        for integer in [output.byteCount, output.part, output.offset, output.blockSize] { self.integer(integer) }
    }

    private mutating func merge(_ merge: MergeOperation) {
        text(merge.method)
        values(merge.values.shared)
        list(merge.values.perInput) { $0.values($1) }
        optional(merge.base) { $0.integer($1) }
        optional(merge.randomKey) { $0.bits($1) }
        text(merge.codec.name)
        type(merge.codec.dtype)
    }

    private mutating func stage(_ stage: ModelStage) {
        for number in [stage.round, stage.known, stage.width] { integer(number) }
        list(stage.prefixes.sorted { $0.key.precedesInBytes($1.key) }) { encoding, statistic in
            encoding.text(statistic.key)
            encoding.list(statistic.value) { encoding, prefix in encoding.optional(prefix) { $0.integer(Int($1)) } }
        }
    }

    private mutating func values(_ values: [String: ParameterValue]) {
        list(values.sorted { $0.key.precedesInBytes($1.key) }) { encoding, value in
            encoding.text(value.key)
            switch value.value {
            case .number(let number):
                encoding.tag(0)
                encoding.number(number)
            case .flag(let flag):
                encoding.tag(1)
                encoding.flag(flag)
            case .text(let text):
                encoding.tag(2)
                encoding.text(text)
            case .numbers(let numbers):
                encoding.tag(3)
                encoding.list(numbers) { $0.number($1) }
            }
        }
    }

    // MARK: Sources

    private mutating func source(_ source: SourceReference) {
        switch source {
        case .stored(let stored):
            tag(0)
            self.stored(stored)
        case .lowRank(let matrix, let update):
            tag(update.experts != nil ? 4 : update.a == nil ? 5 : 1)
            self.source(matrix)
            if let experts = update.experts {
                integer(experts.count)
                optional(experts.expert) { $0.integer($1) }
                integer(experts.firstRow)
            }
            if let a = update.a { stored(a) }
            stored(update.b)
            integer(update.rank)
            number(update.scale)
            flag(update.isTransposed)
        case .rescaled(let matrix, let magnitudes):
            tag(6)
            self.source(matrix)
            stored(magnitudes.magnitudes)
            flag(magnitudes.axis == .rows)
        case .residual(let matrix, let residual):
            tag(7)
            self.source(matrix)
            flag(residual.part == .principal)
            integer(residual.rank)
            number(residual.scale)
            text(residual.linearAlgebra)
        case .transposed(let matrices, let transpose):
            tag(8)
            self.source(matrices)
            integers(transpose.shape)
        case .packed(let base, let vector):
            tag(2)
            self.source(base)
            self.vector(vector)
        case .aligned(let matrices, let alignment):
            tag(3)
            list(matrices) { $0.source($1) }
            integer(alignment.rowLength)
            list(alignment.map.runs) { encoding, run in
                encoding.integer(run.rows.count)
                encoding.origin(run.origin)
            }
        }
    }

    private mutating func stored(_ stored: StoredReference) {
        integer(stored.file)
        integer(stored.offset)
        type(stored.dtype)
        integers(stored.shape)
    }

    private mutating func vector(_ vector: VectorReference) {
        integers(vector.shape)
        for part in [vector.own, vector.shared] {
            optional(part) { encoding, part in
                encoding.format(part.format)
                encoding.integer(part.file)
                encoding.integers(part.offsets)
            }
        }
        number(vector.factor)
        digest(vector.baseSample)
    }

    private mutating func origin(_ origin: RowMap.Origin) {
        switch origin {
        case .stored(let row):
            tag(0)
            self.row(row)
        case .mean(let rows):
            tag(1)
            list(rows) { $0.row($1) }
        case .zero: tag(2)
        case .padding: tag(3)
        }
    }

    private mutating func row(_ row: RowMap.SourceRow) {
        integer(row.source)
        integer(row.row)
    }
}
