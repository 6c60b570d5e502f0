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

    /// Memory for the frame that has begun.
    private enum Memory {
        case none
        case taken(Int, of: FrameLimits)
        case waits(Int, bytes: Int, of: FrameLimits)
    }

    /// `nil` where the peer is trusted with memory.
    private let budget: ReceiveBudget?
    private var memory = Memory.none
    /// Whether the channel wants to read while the frame waits for memory.
    private var hasHeldRead = false
    /// Ends the connection unless the frame that has begun ends first.
    private var deadline: Scheduled<Void>?
    /// Bytes of the frame's body that the deadline allows for.
    private var deadlineBytes = 0

    init(limits: FrameLimits, received: ReceivedBytes, budget: ReceiveBudget?, buffers: FrameBuffers? = nil) {
        decoder = FrameDecoder(limits: limits, buffers: buffers)
        self.received = received
        self.budget = budget
    }

    // MARK: Inbound

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isBroken else { return }
        var piece = unwrapInboundIn(data)
        received.add(piece.readableBytes)
        check(context) { () throws(FrameError) in
            while let frame = try decoder.next(in: &piece) {
                release()
                context.fireChannelRead(wrapInboundOut(frame))
            }
        }
        if !isBroken, decoder.isWithinFrame { holdUnfinished(context) }
        resumeReading(context)
    }

    /// While the frame waits for memory, the peer's bytes stay in the network.
    func read(context: ChannelHandlerContext) {
        if case .waits = memory { hasHeldRead = true } else { context.read() }
    }

    // MARK: Unfinished frames

    /// Takes memory for the frame that has begun, and sets its deadline.
    private func holdUnfinished(_ context: ChannelHandlerContext) {
        guard let budget else { return }
        if case .waits = memory { return }
        let bytes = decoder.unfinishedBytes, limits = decoder.limits
        if case .none = memory, bytes > Limits.uncountedFrameBytes {
            let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop), eventLoop = context.eventLoop
            let answer = budget.take(bytes, of: limits) { eventLoop.execute { bound.value.0.granted(bound.value.1) } }
            switch answer {
            case .taken: memory = .taken(bytes, of: limits)
            case .waits(let number):
                memory = .waits(number, bytes: bytes, of: limits)
                return
            }
        }
        setDeadline(context)
    }

    private func granted(_ context: ChannelHandlerContext) {
        guard case .waits(_, let bytes, let limits) = memory else { return }
        memory = .taken(bytes, of: limits)
        setDeadline(context)
        resumeReading(context)
    }

    private func resumeReading(_ context: ChannelHandlerContext) {
        if case .waits = memory { return }
        guard hasHeldRead else { return }
        hasHeldRead = false
        context.read()
    }

    private func setDeadline(_ context: ChannelHandlerContext) {
        guard deadline == nil || decoder.unfinishedBytes > 0 && deadlineBytes == 0 else { return }
        deadline?.cancel()
        deadlineBytes = decoder.unfinishedBytes
        let seconds = Int64(Limits.unfinishedFrame.components.seconds) + Int64(deadlineBytes / Limits.slowestFrameRate)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: .seconds(seconds)) {
            let (handler, context) = bound.value
            handler.check(context) { () throws(FrameError) in throw FrameError.stalled }
        }
    }

    /// Gives the memory of a frame that has ended back.
    private func release() {
        deadline?.cancel()
        deadline = nil
        deadlineBytes = 0
        switch memory {
        case .none: return
        case .taken(let bytes, let limits): budget?.giveBack(bytes, of: limits)
        case .waits(let number, let bytes, let limits):
            // Granted meanwhile, and the message about it is on its way.
            if budget?.stopWaiting(number, of: limits) == false { budget?.giveBack(bytes, of: limits) }
        }
        memory = .none
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

    func handlerRemoved(context: ChannelHandlerContext) { release() }

    func channelInactive(context: ChannelHandlerContext) {
        release()
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
