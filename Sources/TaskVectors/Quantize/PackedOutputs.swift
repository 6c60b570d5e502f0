import Core
import FoundationEssentials
import Operators
import Synchronization

/// Takes the bytes of the vectors that are packed with those of other tensors: they travel with the statistics, and are written
/// when the store is published.
struct PackedOutputs: Sendable {
    /// The tensor with an output for each of the formats' tensors: the plan's, or one in memory.
    let tensor: TensorPasses
    /// Of each task; empty for a vector with outputs of its own.
    private let sinks: [[ByteSink]]

    init(_ quantizer: Quantizer, of tensor: TensorPasses) {
        guard quantizer.packLimit != nil else {
            self.tensor = tensor
            sinks = quantizer.tasks.map { _ in [] }
            return
        }
        var all: [any BlockSink] = [], packed: [[ByteSink]] = [], given = tensor.sinks[...]
        let shared = quantizer.formats.count - quantizer.tasks.count
        for (index, format) in quantizer.formats.enumerated() {
            let tensors = format.tensors(shape: tensor.shape)
            if index >= shared, quantizer.packedByteCount(of: format, shape: tensor.shape) != nil {
                packed.append(tensors.map { ByteSink(count: $0.byteCount) })
                all += packed.last ?? []
            } else {
                if index >= shared { packed.append([]) }
                all += given.prefix(tensors.count)
                given = given.dropFirst(tensors.count)
            }
        }
        self.tensor = tensor.with(sinks: all)
        sinks = packed
    }

    /// The tensors of the task's format, one after another; `nil` for a vector with outputs of its own.
    func bytes(ofTask task: Int) -> Data? {
        sinks[task].isEmpty ? nil : sinks[task].reduce(into: Data()) { $0.append(contentsOf: $1.contents) }
    }
}

/// A small output in memory.
private final class ByteSink: BlockSink {
    private let bytes: Mutex<[UInt8]>

    init(count: Int) { bytes = Mutex(Array(repeating: 0, count: count)) }

    var contents: [UInt8] { bytes.withLock(\.self) }

    func writeBlocks(_ blocks: BlockPair, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void) throws {
        try bytes.withLock { bytes in
            try bytes.withUnsafeMutableBytes { target in
                guard let base = target.baseAddress else { return }
                for block in [blocks.first, blocks.second] {
                    for start in stride(from: block.lowerBound, to: block.upperBound, by: step) {
                        try fill(start..<min(block.upperBound, start + step), base + start)
                    }
                }
            }
        }
    }

    func storeBlocks(_ blocks: BlockPair, _ stored: UnsafeRawBufferPointer) {
        bytes.withLock { $0.replaceSubrange(blocks.byteRange, with: stored) }
    }

    func storeBlock(_ index: Int, offset: Int, _ stored: UnsafeRawBufferPointer, digest: Digest) {
        bytes.withLock { $0.replaceSubrange(offset..<offset + stored.count, with: stored) }
    }
}
