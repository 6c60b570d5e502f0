import Core
package import NIOCore

/// Frames over any channel: what both ends of a connection put into their pipelines.
package enum FrameChannel {
    package typealias Async = NIOAsyncChannel<Frame, Never>

    /// Bytes: few enough that they are still in the core's own cache when they are copied.
    private static let largestRead = 256 << 10

    /// Adds the handlers that turn bytes into frames and back. Call it on the channel's event loop.
    ///
    /// Frames are sent with `channel.writeAndFlush(frame)`, from any thread; they leave in the order of `OutboundQueue`.
    package static func configure(_ channel: any Channel) throws -> Async {
        // Large reads: a block is many of them.
        try channel.syncOptions?.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 4 << 10, initial: 64 << 10, maximum: largestRead))
        try channel.pipeline.syncOperations.addHandler(FrameHandler())
        return try Async(wrappingChannelSynchronously: channel)
    }
}

extension Channel {
    /// Sends a message; what it cannot carry closes the connection.
    ///
    /// - Parameter urgent: whether it goes before data that is waiting, even if messages of its kind do not.
    package func send(_ message: Message, urgent: Bool = false) {
        do throws(TesseraError) {
            writeAndFlush(try message.frame(urgent: urgent), promise: nil)
        } catch {
            close(promise: nil)
        }
    }
}

/// Cuts what comes in into frames; writes frames while the channel takes them, and keeps the others in order.
private final class FrameHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = Frame
    typealias OutboundIn = Frame
    typealias OutboundOut = ByteBuffer

    private typealias Entry = (frame: Frame, written: EventLoopPromise<Void>?)

    private var queue = OutboundQueue<Entry>()
    private var encoder = FrameEncoder()
    private var decoder = FrameDecoder()
    /// Whether something came in that is no frame: there is no telling where the next one would begin.
    private var isBroken = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isBroken else { return }
        var piece = unwrapInboundIn(data)
        check(context) { () throws(FrameError) in
            while let frame = try decoder.next(in: &piece) { context.fireChannelRead(wrapInboundOut(frame)) }
        }
    }

    private func check(_ context: ChannelHandlerContext, _ decode: () throws(FrameError) -> Void) {
        do throws(FrameError) {
            try decode()
        } catch {
            isBroken = true
            context.fireErrorCaught(error)
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let frame = unwrapOutboundIn(data)
        queue.add((frame, promise), as: frame.header.type)
    }

    func flush(context: ChannelHandlerContext) { drain(context) }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { drain(context) }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !isBroken { check(context) { () throws(FrameError) in try decoder.finish() } }
        while let entry = queue.next() { entry.written?.fail(ChannelError.ioOnClosedChannel) }
        context.fireChannelInactive()
    }

    private func drain(_ context: ChannelHandlerContext) {
        while context.channel.isWritable, let (frame, written) = queue.next() {
            // Header and body leave in one vectored write, without being copied together.
            context.write(wrapOutboundOut(encoder.encodeHeader(of: frame)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(frame.body), promise: written)
        }
    }
}
