import Core
import Protocol
import Transport

/// Sends blocks to the coordinator, no faster than the coordinator stores them.
struct StreamOutput: ShardOutput {
    let attempt: Attempt
    /// The element width of each tensor, in bytes.
    let widths: [Int]
    let gate: CreditGate
    let connection: Connection
    let packs: Bool
    let buffers: BlockBuffers
    let frameBuffers: FrameBuffers

    var pieceSize: Int { TreeDigest.blockSize }
    var computesDigests: Bool { true }

    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
        if packs { return try pack(bytes, tensor, offset) }
        try store(byteCount: bytes.count, tensor: tensor, offset: offset) { target, _ in
            UnsafeMutableRawBufferPointer(start: target, count: bytes.count).copyMemory(from: bytes)
        }
    }

    func store(
        byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
    ) throws {
        if packs {
            return try buffers.with { buffer in
                try fill(buffer) { _ in }
                try pack(UnsafeRawBufferPointer(start: buffer, count: byteCount), tensor, offset)
            }
        }
        let frame = try BlockFrame.storing(
            byteCount, of: attempt, tensor: tensor, offset: offset, in: frameBuffers.take(), fill: fill)
        try gate.take(frame.byteCount)
        connection.send(frame) { [frameBuffers, body = frame.body] in frameBuffers.giveBack(body) }
    }

    private func pack(_ bytes: UnsafeRawBufferPointer, _ tensor: Int, _ offset: Int) throws {
        let frame = BlockFrame.packing(bytes, elementWidth: widths[tensor], of: attempt, tensor: tensor, offset: offset)
        try gate.take(frame.byteCount)
        connection.send(frame)
    }

    func finish() {}
}
