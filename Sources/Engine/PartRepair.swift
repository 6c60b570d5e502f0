import Checkpoints
import Core
import Operators
import Work
import Worker

/// A part of an output that is made anew beside the old one.
struct PartRepair {
    let part: ManifestPart
    /// The new file.
    let file: OutputFile
    /// Where the tensors begin of which a block is neither in the old file nor elsewhere, in bytes from the beginning of the
    /// part.
    private(set) var missing: Set<Int> = []
    private var hasHeader = false
    private let directory: Directory
    private let name: String

    /// Creates the new file, and copies what is good of the old one.
    ///
    /// - Throws: `io` when there is too little space, `cannotCreate` or `notAllowed` when the directory cannot be written.
    init(_ part: ManifestPart, in directory: Directory, from path: String, suffix: String) throws(TesseraError) {
        self.part = part
        self.directory = directory
        name = part.file + suffix
        file = try OutputFile(creating: name, in: directory, size: part.size, reserve: true)
        try copy(from: try? LocalFiles().open("\(path)/\(part.file)"))
    }

    /// Whether nothing is left to be computed.
    var isWhole: Bool { hasHeader && missing.isEmpty }

    mutating func writeHeader(_ header: [UInt8]) throws(TesseraError) {
        try file.write(header)
        hasHeader = true
    }

    /// Copies the header and every block that has the manifest's digest. What cannot be read is as good as damaged.
    mutating func copy(from source: (any ByteSource)?) throws(TesseraError) {
        if !hasHeader, let header = try? source?.bytes(0..<part.dataStart), try Digest.sha256(of: header) == part.headerDigest {
            try writeHeader(header)
        }
        missing = []
        var start = part.dataStart
        for tensor in part.tensors {
            let size = tensor.blockSize ?? TreeDigest.blockSize, end = start + tensor.byteCount
            for (index, position) in stride(from: start, to: end, by: size).enumerated() {
                let bytes = try? source?.bytes(position..<min(end, position + size))
                if let bytes, try Digest.sha256(of: bytes) == tensor.blocks[index] {
                    try file.write(bytes, at: position)
                } else {
                    missing.insert(start)
                }
            }
            start = end
        }
    }

    /// Makes the new file durable and gives it the old one's name.
    func finish() throws(TesseraError) {
        try file.sync()
        try directory.replace(part.file, by: name)
    }

    func giveUp() { directory.removeFile(name) }
}

/// Takes the bytes of tensors that are computed again, and passes on those that are damaged.
struct RepairedParts: ShardOutput {
    /// A tensor of the output.
    struct Place: Hashable {
        let part: Int
        /// Bytes from the beginning of the part.
        let offset: Int

        init(part: Int, offset: Int) {
            self.part = part
            self.offset = offset
        }

        init(_ output: OutputTensor) { self.init(part: output.part, offset: output.offset) }
    }

    /// By the part's number in the plan.
    var files: [Int: OutputFile] = [:]
    /// The shard's outputs; `nil` for those that nobody needs.
    var outputs: [OutputTensor?] = []

    let pieceSize = TreeDigest.blockSize

    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
        guard outputs.indices.contains(tensor), let output = outputs[tensor] else { return }
        try files[output.part]?.write(bytes, at: output.offset + offset)
    }

    func finish() {}
}
