package import Core

/// A tensor as a safetensors header describes it.
package struct TensorEntry: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType
    package let shape: [Int]
    /// The byte range in the file.
    package let range: Range<Int>

    package init(name: String, dtype: DType, shape: [Int], range: Range<Int>) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.range = range
    }

    package var elementCount: Int { Shape.count(shape) }
    package var byteCount: Int { range.count }
}

/// The header of a safetensors file, wholly checked: every tensor lies inside the file, none overlaps another, nothing is left
/// over.
///
/// ```
/// byte 0        8              8 + N                            end of file
/// | N, 64 bits | JSON, N bytes | tensor data, no gaps, no slack |
/// ```
package struct SafetensorsHeader: Sendable, Hashable {
    /// In file order.
    package let tensors: [TensorEntry]
    package let metadata: [String: String]
    /// Bytes before the tensor data.
    package let byteCount: Int
    package let fileSize: Int
    /// SHA-256 of the bytes before the tensor data.
    package let digest: Digest
    /// `FileStatus.identity` of the file that it was read from; empty for one made of bytes.
    package private(set) var fileVersion = ""

    /// The limit of the safetensors library, in bytes.
    package static let jsonLimit = 100_000_000
    /// The size of the length field at the start of the file, in bytes.
    package static let prefixBytes = 8
    static let nameLimit = 4096
    static let rankLimit = 64

    /// Reads and validates the header of the file at `path`. Tensor data is not read.
    ///
    /// - Throws: `badData` naming the file, tensor and numbers; `inputMissing`, `notAllowed` or `io` if the file cannot be read.
    package static func read(path: String, in files: any InputFiles) throws(TesseraError) -> SafetensorsHeader {
        let file = try files.open(path)
        guard file.size <= SizeLimit.file else {
            throw TesseraError(
                .badData, "has \(file.size) bytes; a file may have at most \(SizeLimit.file)", file: path)
        }
        let beginning = try file.bytes(0..<min(file.size, BrokenDownload.prefixBytes))
        try BrokenDownload.check(beginning, isText: false, file: path)
        guard file.size >= prefixBytes else {
            throw TesseraError(.badData, "is not a safetensors file: \(file.size) bytes is too short for a header", file: path)
        }
        let length = beginning.prefix(prefixBytes).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(jsonLimit) else {
            throw TesseraError(
                .badData, "the header length is \(length) bytes; safetensors allows at most \(jsonLimit)", file: path,
                advice: "check that this is a safetensors file")
        }
        let byteCount = prefixBytes + Int(length)
        guard byteCount <= file.size else {
            throw TesseraError(
                .badData, "the header length is \(length) bytes, but the file has only \(file.size)", file: path,
                advice: "the file may be truncated; copy it again")
        }
        var header = try SafetensorsHeader(bytes: file.bytes(0..<byteCount), fileSize: file.size, file: path)
        header.fileVersion = file.identity
        return header
    }

    /// - Parameter bytes: all bytes of the file before the tensor data.
    package init(bytes: [UInt8], fileSize: Int, file: String) throws(TesseraError) {
        let json = Array(bytes.dropFirst(Self.prefixBytes))
        let (entries, metadata) = try HeaderParser(file: file, dataStart: bytes.count, fileSize: fileSize).parse(json)
        tensors = entries
        self.metadata = metadata
        byteCount = bytes.count
        self.fileSize = fileSize
        digest = try .sha256(of: bytes)
    }
}

/// The rules of the header format.
private struct HeaderParser {
    let file: String
    let dataStart: Int
    let fileSize: Int

    /// Entries of metadata. Training tools write some hundred.
    private static let metadataLimit = 10_000

    func parse(_ json: [UInt8]) throws(TesseraError) -> (entries: [TensorEntry], metadata: [String: String]) {
        guard json.first == UInt8(ascii: "{") else { throw error("the header does not begin with '{'") }
        var entries: [TensorEntry] = []
        var metadata: [String: String] = [:]
        var scanner = JSONScanner(json, file: file)
        try scanner.object { scanner, name throws(TesseraError) in
            if name == "__metadata__" {
                metadata = try self.metadata(&scanner)
            } else {
                entries.append(try entry(name, &scanner))
            }
        }
        guard json[scanner.position...].allSatisfy({ $0 == 0x20 }) else {
            throw scanner.error("unexpected data after the header's object")
        }
        entries.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
        try checkCoverage(entries)
        return (entries, metadata)
    }

    private func metadata(_ scanner: inout JSONScanner) throws(TesseraError) -> [String: String] {
        var metadata: [String: String] = [:]
        try scanner.object { scanner, key throws(TesseraError) in
            guard metadata.count < Self.metadataLimit else {
                throw error("the header has more than \(Self.metadataLimit) entries of metadata")
            }
            metadata[key] = try scanner.string()
        }
        return metadata
    }

    private func entry(_ name: String, _ scanner: inout JSONScanner) throws(TesseraError) -> TensorEntry {
        guard !name.isEmpty, name.utf8.count <= SafetensorsHeader.nameLimit else {
            throw error("a tensor name has \(name.utf8.count) bytes; it must have 1 to \(SafetensorsHeader.nameLimit)")
        }
        guard !name.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else {
            throw error("the name \(JSONText.quoted(name)) contains a control character")
        }
        var typeName: String?
        var shape: [Int]?
        var offsets: [Int]?
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "dtype": typeName = try scanner.string()
            case "shape": shape = try naturals(&scanner, atMost: SafetensorsHeader.rankLimit)
            case "data_offsets": offsets = try naturals(&scanner, atMost: 2)
            default: throw error("has the unknown key '\(key)'", tensor: name)
            }
        }
        guard let typeName, let shape, let offsets else {
            throw error("must have dtype, shape and data_offsets", tensor: name)
        }
        guard let dtype = DType(rawValue: typeName) else {
            throw error("has the unknown dtype '\(typeName)'", tensor: name)
        }
        guard offsets.count == 2, offsets[0] <= offsets[1] else {
            throw error("has data_offsets \(offsets), which is not a valid range", tensor: name)
        }
        guard offsets[1] <= fileSize - dataStart else {
            throw error(
                "ends at byte \(offsets[1]), but there are only \(fileSize - dataStart) bytes of tensor data", tensor: name,
                advice: "the file may be truncated; copy it again")
        }
        try checkSize(name, dtype, shape, byteCount: offsets[1] - offsets[0])
        return TensorEntry(name: name, dtype: dtype, shape: shape, range: dataStart + offsets[0]..<dataStart + offsets[1])
    }

    private func naturals(_ scanner: inout JSONScanner, atMost limit: Int) throws(TesseraError) -> [Int] {
        var numbers: [Int] = []
        numbers.reserveCapacity(2)
        try scanner.array { scanner throws(TesseraError) in
            guard numbers.count < limit else { throw scanner.error("more than \(limit) numbers in a list") }
            numbers.append(try scanner.natural())
        }
        return numbers
    }

    private func checkSize(_ name: String, _ dtype: DType, _ shape: [Int], byteCount: Int) throws(TesseraError) {
        let needed: Int
        do throws(TesseraError) {
            needed = try dtype.byteCount(ofShape: shape)
        } catch {
            throw self.error(error.problem, tensor: name)
        }
        guard needed == byteCount else {
            throw error("has \(byteCount) bytes, but \(shape) of \(dtype.rawValue) needs \(needed)", tensor: name)
        }
    }

    /// Each tensor must begin where the previous one ends, and the last one must end with the file.
    private func checkCoverage(_ entries: [TensorEntry]) throws(TesseraError) {
        var end = dataStart
        for entry in entries {
            guard entry.range.lowerBound == end else {
                let kind =
                    entry.range.lowerBound < end ? "overlaps the previous tensor" : "leaves a gap after the previous tensor"
                throw error("\(kind): it begins at byte \(entry.range.lowerBound), not at \(end)", tensor: entry.name)
            }
            end = entry.range.upperBound
        }
        guard end == fileSize else {
            throw error(
                "the tensors end at byte \(end), but the file has \(fileSize) bytes",
                advice: "the file is truncated or has extra data at its end; copy it again")
        }
    }

    private func error(_ problem: String, tensor: String? = nil, advice: String? = nil) -> TesseraError {
        TesseraError(.badData, problem, file: file, tensor: tensor, advice: advice)
    }
}
