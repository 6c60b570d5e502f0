import Core
import LinearAlgebra
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Work

/// A file of tensors with other tensors between them, and merges of what is made of these.
struct SourceBench {
    private var bytes: [UInt8] = []
    /// Where the tensors lie.
    private(set) var ranges = RangeSet<Int>()

    private static let neighbour = [UInt8](repeating: 0xee, count: 100)

    /// Adds a tensor behind some bytes of a neighbour.
    mutating func add(_ tensor: TestTensor) -> StoredReference {
        bytes += Self.neighbour
        let offset = bytes.count
        bytes += tensor.bytes
        ranges.insert(contentsOf: offset..<bytes.count)
        return StoredReference(file: 0, offset: offset, dtype: tensor.dtype, shape: tensor.shape)
    }

    /// A bfloat16 tensor of small numbers.
    mutating func add(_ shape: [Int], seed: Int = 1) -> StoredReference {
        add(TestTensor(bfloat16: (0..<shape.reduce(1, *)).map { Float(($0 &* 31 &+ seed &* 7) % 251) / 64 }, shape: shape))
    }

    /// A task vector whose bitmap keeps every second element; its codes and scales are zero.
    mutating func add(_ format: StorageFormat, shape: [Int]) -> VectorReference.Vector {
        let parts = format.tensors(shape: shape).map { part in
            let byte: UInt8 = part.part == .mask ? 0x55 : 0
            return add(TestTensor(part.dtype, part.shape, bytes: [UInt8](repeating: byte, count: part.byteCount)))
        }
        return VectorReference.Vector(format: format, file: 0, offsets: parts.map(\.offset))
    }

    /// A source that adds a task vector to `base`.
    func packed(_ base: StoredReference, own: VectorReference.Vector?, shared: VectorReference.Vector? = nil) throws
        -> SourceReference
    {
        let tensor = try StoredTensor(file(), offset: base.offset, dtype: base.dtype, count: base.elementCount)
        return .packed(
            base: .stored(base),
            VectorReference(
                shape: base.shape, own: own, shared: shared, factor: 1, baseSample: try BaseIdentity.sample(of: tensor)))
    }

    func file(isDirect: Bool = true) -> RecordingBytes { RecordingBytes(bytes + Self.neighbour, isDirect: isDirect) }

    /// Merges the sources and says what became of the file, and the output as float32.
    func merge(
        _ sources: [SourceReference], given: [GivenReference] = [], shape: [Int], by method: String = "linear", base: Int? = nil,
        isDirect: Bool = true
    ) throws -> (notes: RecordingBytes.Notes, output: [UInt8]) {
        let count = shape.reduce(1, *), file = file(isDirect: isDirect), sink = Collector()
        let merge = MergeOperation(
            method: method,
            values: ParameterValues(
                shared: [
                    "normalize": .flag(true), "rescale": .flag(true), "lambda": .number(1), "epsilon": .number(1),
                    "ridge": .number(0), "off_diagonal": .number(1),
                ],
                perInput: sources.map { _ in
                    ["weight": .number(0.5), "density": .number(0.5), "normalize": .flag(true), "squared_fisher": .number(1)]
                }), base: base, linearAlgebra: try LinearAlgebra.identity(),
            codec: .rounding(to: .f32))
        let work = TensorWork(
            name: "t", shape: shape, operation: .merge(merge), sources: sources,
            given: given,
            outputs: Rounding(dtype: .f32).outputs(shape: shape).map { OutputTensor($0, name: "t", part: 0, offset: 0) })
        let opened = try work.openSources(in: [file], kernels: .best)
        try merge.method(sources, given: given).merge(
            TensorPasses(
                shape: shape, codec: try merge.codec.codec(), sources: opened, given: try work.openGiven(in: [file]),
                inputs: merge.inputs(sources, given: given), kernels: .best, runner: AtOnce(),
                memory: MemoryBudget(bytes: 1 << 20), matrixElements: work.cost().matrixElements, sinks: [sink]))
        return (file.notes, try sink.bytes(count: 4 * count))
    }
}
