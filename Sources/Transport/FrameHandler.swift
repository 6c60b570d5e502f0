import NIOCore
import Protocol
import Synchronization

/// Turns the bytes of a channel into frames and back: writes frames while the channel accepts bytes, and keeps the others in the
/// order of `OutboundQueue`.
///
/// `FrameLimits` as an outbound user event change what is accepted from then on.
final class FrameHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = Frame
    typealias OutboundIn = Frame
    typealias OutboundOut = ByteBuffer

    private typealias Entry = (frame: Frame, written: EventLoopPromise<Void>?)

    private var queue = OutboundQueue<Entry>()
    private var encoder = FrameEncoder()
    private var decoder: FrameDecoder
    private let received: ReceivedBytes
    /// Whether bytes arrived that are no frame: nothing says where the next one would begin.
    private var isBroken = false

    init(limits: FrameLimits, received: ReceivedBytes) {
        decoder = FrameDecoder(limits: limits)
        self.received = received
    }

    // MARK: Inbound

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isBroken else { return }
        var piece = unwrapInboundIn(data)
        received.add(piece.readableBytes)
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

    // MARK: Outbound

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let frame = unwrapOutboundIn(data)
        queue.add((frame, promise), as: frame.header.type)
    }

    func flush(context: ChannelHandlerContext) { drain(context) }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard let limits = event as? FrameLimits else {
            return context.triggerUserOutboundEvent(event, promise: promise)
        }
        decoder.limits = limits
        promise?.succeed()
    }

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

/// Counts the bytes of a connection as they arrive.
final class ReceivedBytes: Sendable {
    private let count = Atomic(0)

    var total: Int { count.load(ordering: .relaxed) }
    func add(_ bytes: Int) { count.wrappingAdd(bytes, ordering: .relaxed) }
}
