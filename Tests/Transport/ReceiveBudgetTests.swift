import Core
import NIOCore
import NIOEmbedded
import Protocol
import Testing

@testable import Transport

/// Frames that have begun and not ended: their memory and their time are bounded over all connections.
@Suite struct ReceiveBudgetTests {
    private let budget = ReceiveBudget()

    /// Counts the reads that reach the socket.
    private final class Reads: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        var count = 0

        func read(context: ChannelHandlerContext) {
            count += 1
            context.read()
        }
    }

    private struct Peer {
        let channel = EmbeddedChannel()
        let reads = Reads()

        init(_ limits: FrameLimits, _ budget: ReceiveBudget) throws {
            try channel.pipeline.syncOperations.addHandlers(
                reads, FrameHandler(limits: limits, received: ReceivedBytes(), budget: budget))
        }

        /// Sends all of a frame but `missing` bytes.
        func send(_ frame: Frame, missing: Int = 0) throws {
            var encoder = FrameEncoder(), bytes = encoder.encodeHeader(of: frame)
            bytes.writeImmutableBuffer(frame.body)
            _ = try channel.writeInbound(bytes.getSlice(at: 0, length: bytes.readableBytes - missing))
        }

        func hasFrame() throws -> Bool { try channel.readInbound(as: Frame.self) != nil }

        /// Whether the channel reads when it wants to.
        func canRead() -> Bool {
            let before = reads.count
            channel.pipeline.read()
            return reads.count > before
        }
    }

    private static let block = Frame(.block, body: ByteBuffer(repeating: 1, count: 8 << 20))
    private static let message = Frame(.control, body: ByteBuffer(repeating: 1, count: 4 << 20))

    /// A hundred clients that never end a frame once held 862 MB.
    @Test func unfinishedFramesShareABoundedMemory() throws {
        var clients: [Peer] = []
        for _ in 0..<100 {
            let client = try Peer(.messages, budget)
            try client.send(Self.message, missing: (4 << 20) - 10)
            clients.append(client)
        }
        let allowed = Limits.unfinishedRequestBytes / (4 << 20)
        #expect(budget.used(of: .messages) == Limits.unfinishedRequestBytes)
        #expect(clients.prefix(allowed).allSatisfy { $0.canRead() })
        #expect(clients.dropFirst(allowed).allSatisfy { !$0.canRead() })
        // Workers have memory of their own.
        let worker = try Peer(.worker, budget)
        try worker.send(Self.block, missing: 1)
        #expect(worker.canRead())
        // Who waits goes on in the order of arrival, and with the read that was held back.
        let next = clients[allowed], before = next.reads.count
        _ = try? clients[0].channel.finish(acceptAlreadyClosed: true)
        next.channel.embeddedEventLoop.run()
        #expect(next.reads.count == before + 1 && next.canRead())
        #expect(!clients[allowed + 1].canRead())
        // Who leaves while waiting is forgotten.
        for client in clients.dropFirst(1) { _ = try? client.channel.finish(acceptAlreadyClosed: true) }
        #expect(budget.used(of: .messages) == 0)
    }

    @Test func aFrameThatEndsGivesItsMemoryBack() throws {
        let worker = try Peer(.worker, budget)
        var encoder = FrameEncoder()
        for _ in 0..<3 {
            var bytes = encoder.encodeHeader(of: Self.block)
            bytes.writeImmutableBuffer(Self.block.body)
            while let piece = bytes.readSlice(length: min(1 << 20, bytes.readableBytes)), piece.readableBytes > 0 {
                _ = try worker.channel.writeInbound(piece)
                #expect(budget.used(of: .worker) == (bytes.readableBytes > 0 ? 8 << 20 : 0))
            }
            #expect(try worker.hasFrame())
        }
        // Small frames are not counted, however slowly they come.
        let client = try Peer(.messages, budget)
        try client.send(Frame(.control, body: ByteBuffer(repeating: 1, count: 1000)), missing: 1)
        #expect(budget.used(of: .messages) == 0)
        for peer in [worker, client] { _ = try? peer.channel.finish(acceptAlreadyClosed: true) }
    }

    /// A byte a second keeps no connection and no memory: neither within a body, nor within a header.
    @Test(arguments: [(1, 30 + 128), ((8 << 20) + 10, 30)])
    func aFrameMustEndInTime(missing: Int, seconds: Int) throws {
        let worker = try Peer(.worker, budget)
        try worker.send(Self.block, missing: missing)
        worker.channel.embeddedEventLoop.advanceTime(by: .seconds(Int64(seconds) - 1))
        try worker.channel.throwIfErrorCaught()
        worker.channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(throws: FrameError.stalled) { try worker.channel.throwIfErrorCaught() }
        #expect(FrameError.stalled.isDamage)
        _ = try? worker.channel.finish(acceptAlreadyClosed: true)
        #expect(budget.used(of: .worker) == 0)
    }

    @Test func aFrameThatEndsHasNoDeadlineAnyMore() throws {
        let worker = try Peer(.worker, budget)
        try worker.send(Self.block)
        #expect(try worker.hasFrame())
        worker.channel.embeddedEventLoop.advanceTime(by: .hours(1))
        try worker.channel.throwIfErrorCaught()
        _ = try? worker.channel.finish(acceptAlreadyClosed: true)
    }
}
