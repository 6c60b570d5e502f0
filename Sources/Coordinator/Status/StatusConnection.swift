import NIOCore
import NIOHTTP1
import Protocol
import Transport

/// Bounds what a connection to the status port may take: its place, time and bytes.
///
/// Stands behind the HTTP decoder. The port's other connections may take its place except while a request is being answered.
final class StatusConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// For the first request, the TLS handshake included.
    static let firstRequest = TimeAmount.seconds(10)
    /// For a request, from its head to the end of its answer, or to the next part of an answer in many.
    static let answering = TimeAmount.seconds(60)
    /// For the next request, after an answer.
    static let idle = TimeAmount.seconds(30)
    /// For a part of an answer to leave, before others may have the connection's place: the peer does not read.
    static let leaving = TimeAmount.seconds(3)

    private let place: Place
    private let onRefusal: (String) -> Void
    private var deadline: Scheduled<Void>?
    /// Requests whose end has not come, and requests whose answer has not left.
    private var unread = 0
    private var unanswered = 0
    /// Parts of answers that have not left.
    private var unsent = 0
    private var stall: Scheduled<Void>?
    private var isRefused = false

    /// - Parameter onRefusal: told why a TLS handshake has failed.
    init(place: Place, onRefusal: @escaping (String) -> Void = { _ in }) {
        self.place = place
        self.onRefusal = onRefusal
    }

    func handlerAdded(context: ChannelHandlerContext) { close(context, in: Self.firstRequest) }

    func handlerRemoved(context: ChannelHandlerContext) { cancelTimers() }

    func channelInactive(context: ChannelHandlerContext) {
        cancelTimers()
        context.fireChannelInactive()
    }

    // MARK: Requests

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isRefused else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            // RFC 9112, section 3.2.
            guard head.version == .http1_0 || head.headers["host"].count == 1 else { return refuse(context, .badRequest) }
            if unread + unanswered == 0 {
                place.keep()
                close(context, in: Self.answering)
            }
            unread += 1
            unanswered += 1
        case .body: break
        case .end: unread -= 1
        }
        context.fireChannelRead(data)
        settle(context)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else {
            if let reason = ServerTLS.refusal(error) { onRefusal(reason) }
            return context.fireErrorCaught(error)
        }
        refuse(context, error == .headerOverflow ? .requestHeaderFieldsTooLarge : .badRequest)
    }

    /// Answers what is no request of ours, and closes. Nothing of it goes on to those who answer requests.
    private func refuse(_ context: ChannelHandlerContext, _ status: HTTPResponseStatus) {
        guard !isRefused else { return }
        isRefused = true
        guard unanswered == 0 else { return context.close(promise: nil) }
        let headers: HTTPHeaders = ["content-length": "0", "connection": "close"]
        context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in bound.value.close(promise: nil) }
    }

    // MARK: Answers

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let part = unwrapOutboundIn(data)
        if case .head = part { return context.write(data, promise: promise) }
        let left = promise ?? context.eventLoop.makePromise()
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        unsent += 1
        if unsent == 1 { expectReading(context) }
        left.futureResult.whenComplete { result in
            let (handler, context) = bound.value
            handler.hasSent(context)
            switch part {
            case .head: break
            case .body:
                // An answer in many parts, such as the event stream, has the time of an answer for each of them.
                if case .success = result, handler.unanswered > 0, context.channel.isActive {
                    handler.close(context, in: Self.answering)
                }
            case .end:
                handler.unanswered -= 1
                handler.settle(context)
            }
        }
        context.write(data, promise: left)
    }

    // MARK: Time

    /// Others may have the place unless something of the answer leaves soon.
    private func expectReading(_ context: ChannelHandlerContext) {
        stall?.cancel()
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        stall = context.eventLoop.scheduleTask(in: Self.leaving) { bound.value.place.offer() }
    }

    private func hasSent(_ context: ChannelHandlerContext) {
        unsent -= 1
        guard context.channel.isActive else { return }
        if unanswered > 0 { place.keep() }
        if unsent > 0 { expectReading(context) } else { stall?.cancel() }
    }

    private func cancelTimers() {
        deadline?.cancel()
        stall?.cancel()
    }

    /// Waits for the next request once there is nothing left of the last one.
    private func settle(_ context: ChannelHandlerContext) {
        guard unread == 0, unanswered == 0, context.channel.isActive else { return }
        place.offer()
        close(context, in: Self.idle)
    }

    private func close(_ context: ChannelHandlerContext, in time: TimeAmount) {
        deadline?.cancel()
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: time) { bound.value.close(promise: nil) }
    }
}
