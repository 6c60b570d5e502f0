import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing
import Transport

@testable import Coordinator

/// What a connection to the status port may take, on channels without sockets.
@Suite struct StatusConnectionTests {
    private let admission = Admission(.init(total: 2, perAddress: 1, strangers: 2))

    /// A connection, or `nil` if there is no place for it.
    private func connect(from address: String = "192.0.2.1", reader: SlowReader? = nil) throws -> EmbeddedChannel? {
        let channel = EmbeddedChannel()
        try channel.connect(to: SocketAddress(ipAddress: address, port: 1)).wait()
        guard let place = admission.place(for: channel) else { return nil }
        let pipeline = channel.pipeline.syncOperations
        if let reader { try pipeline.addHandler(reader) }
        try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: false, withErrorHandling: false)
        try pipeline.addHandler(StatusConnection(place: place))
        return channel
    }

    private static let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

    private func answer(_ channel: EmbeddedChannel) throws {
        let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-length": "0"])
        try channel.writeOutbound(HTTPServerResponsePart.head(head))
        try channel.writeOutbound(HTTPServerResponsePart.end(nil))
    }

    /// The bytes that were sent, as text.
    private func sent(_ channel: EmbeddedChannel) throws -> String {
        var text = ""
        while let piece = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: piece) }
        return text
    }

    private func parts(_ channel: EmbeddedChannel) throws -> Int {
        var count = 0
        while try channel.readInbound(as: HTTPServerRequestPart.self) != nil { count += 1 }
        return count
    }

    @Test func silenceEnds() throws {
        let channel = try #require(try connect())
        channel.embeddedEventLoop.advanceTime(by: .seconds(9))
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(!channel.isActive)
    }

    @Test func aRequestThatComesByteByByteEnds() throws {
        let channel = try #require(try connect())
        for byte in Self.request.utf8.prefix(5) {
            try channel.writeInbound(ByteBuffer(bytes: [byte]))
            channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        }
        #expect(!channel.isActive)
    }

    @Test func anAnswerAndTheNextRequestHaveTheirTime() throws {
        let channel = try #require(try connect())
        channel.embeddedEventLoop.advanceTime(by: .seconds(9))
        for _ in 0..<3 {
            try channel.writeInbound(ByteBuffer(string: Self.request))
            channel.embeddedEventLoop.advanceTime(by: .seconds(59))
            try answer(channel)
            #expect(try sent(channel).hasPrefix("HTTP/1.1 200") && parts(channel) == 2)
            channel.embeddedEventLoop.advanceTime(by: .seconds(29))
        }
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(!channel.isActive)
    }

    /// The event stream lasts as long as each of its parts is taken in time.
    @Test func anAnswerInPartsHasTimeForEach() throws {
        let channel = try #require(try connect())
        try channel.writeInbound(ByteBuffer(string: Self.request))
        let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["transfer-encoding": "chunked"])
        try channel.writeOutbound(HTTPServerResponsePart.head(head))
        for _ in 0..<5 {
            channel.embeddedEventLoop.advanceTime(by: .seconds(59))
            try channel.writeOutbound(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: "x"))))
        }
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(60))
        #expect(!channel.isActive)
    }

    @Test func anAnswerWithoutEndEnds() throws {
        let channel = try #require(try connect())
        try channel.writeInbound(ByteBuffer(string: Self.request))
        channel.embeddedEventLoop.advanceTime(by: .seconds(60))
        #expect(!channel.isActive)
    }

    /// A body that comes for ever holds no more than an answer that nobody reads.
    @Test func aBodyWithoutEndEnds() throws {
        let channel = try #require(try connect())
        try channel.writeInbound(ByteBuffer(string: "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"))
        try answer(channel)
        for _ in 0..<6 {
            #expect(channel.isActive)
            try channel.writeInbound(ByteBuffer(string: "x"))
            channel.embeddedEventLoop.advanceTime(by: .seconds(10))
        }
        #expect(!channel.isActive)
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", "400"), ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"), ("GE T\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "x", count: 1 << 20))\r\n\r\n", "431"),
        ("GET /\(String(repeating: "x", count: 1 << 20)) HTTP/1.1\r\nHost: a\r\n\r\n", "431"),
    ])
    func whatIsNoRequestIsAnsweredAndClosed(text: String, status: String) throws {
        let channel = try #require(try connect())
        try channel.writeInbound(ByteBuffer(string: text))
        #expect(try sent(channel).hasPrefix("HTTP/1.1 \(status) "))
        #expect(try !channel.isActive && parts(channel) == 0)
    }

    @Test func oldClientsNeedNoHost() throws {
        let channel = try #require(try connect())
        try channel.writeInbound(ByteBuffer(string: "GET /healthz HTTP/1.0\r\n\r\n"))
        #expect(try channel.isActive && parts(channel) == 2)
    }

    /// A connection may take the place of another one, except while that one is answered.
    @Test func placesGoToWhoAsks() throws {
        let first = try #require(try connect())
        try first.writeInbound(ByteBuffer(string: Self.request))
        #expect(try connect() == nil)
        try answer(first)
        #expect(first.isActive)
        let second = try connect()
        #expect(second != nil && !first.isActive)
        // Others are not touched by that.
        #expect(try connect(from: "192.0.2.2") != nil && second?.isActive == true)
    }

    /// A peer that does not read its answer loses its place to who asks, and one that reads slowly does not.
    @Test func whoDoesNotReadLosesThePlace() throws {
        let reader = SlowReader(), first = try #require(try connect(reader: reader))
        try first.writeInbound(ByteBuffer(string: Self.request))
        let head = HTTPResponseHead(version: .http1_1, status: .ok)
        first.writeAndFlush(HTTPServerResponsePart.head(head), promise: nil)
        for _ in 0..<5 {
            first.writeAndFlush(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: "x"))), promise: nil)
            first.embeddedEventLoop.advanceTime(by: .seconds(2))
            #expect(try connect() == nil && first.isActive)
            reader.read()
        }
        // Nothing to read is no fault of the peer.
        first.embeddedEventLoop.advanceTime(by: .seconds(9))
        #expect(try connect() == nil && first.isActive)
        first.writeAndFlush(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: "x"))), promise: nil)
        first.embeddedEventLoop.advanceTime(by: .seconds(3))
        #expect(try connect() != nil && !first.isActive)
    }
}

/// Keeps what is written until the peer reads.
private final class SlowReader: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer

    private var unread: [EventLoopPromise<Void>?] = []

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) { unread.append(promise) }

    func read() {
        let left = unread
        unread = []
        for promise in left { promise?.succeed() }
    }
}
