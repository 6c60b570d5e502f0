package import Core
import FoundationEssentials
import NIOCore

/// The JSON messages: `{"type": "lease", "content": {...}}`. Unknown keys are ignored.
package enum Message: Sendable, Hashable {
    case hello(Hello)
    case welcome(Welcome)
    case refusal(Refusal)
    case heartbeat(Heartbeat)
    case heartbeatAnswer(HeartbeatAnswer)
    case lease(Lease)
    case revoke(Revoke)
    case shardDone(ShardDone)
    case shardFailed(ShardFailed)
    case credit(Credit)
    case fetch(FetchRequest)
    case fetchFailed(FetchFailed)
    /// The worker accepts no more leases and leaves after its last one. The coordinator answers `drain` and sends no more leases.
    case drain
    /// The sender is about to close the connection, with the reason.
    case goodbye(String)
    case submit(Submit)
    case submitted(Submitted)
    case statusRequest(StatusRequest)
    case status(Status)
    case cancel(Cancel)
    case cancelled(Cancelled)
    case failure(Failure)
}

extension Message: Codable {
    private enum CodingKeys: String, CodingKey {
        case type, content
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        func content<Content: Decodable>() throws -> Content { try container.decode(Content.self, forKey: .content) }
        switch try container.decode(String.self, forKey: .type) {
        case "hello": self = .hello(try content())
        case "welcome": self = .welcome(try content())
        case "refusal": self = .refusal(try content())
        case "heartbeat": self = .heartbeat(try content())
        case "heartbeatAnswer": self = .heartbeatAnswer(try content())
        case "lease": self = .lease(try content())
        case "revoke": self = .revoke(try content())
        case "shardDone": self = .shardDone(try content())
        case "shardFailed": self = .shardFailed(try content())
        case "credit": self = .credit(try content())
        case "fetch": self = .fetch(try content())
        case "fetchFailed": self = .fetchFailed(try content())
        case "drain": self = .drain
        case "goodbye": self = .goodbye(try content())
        case "submit": self = .submit(try content())
        case "submitted": self = .submitted(try content())
        case "statusRequest": self = .statusRequest(try content())
        case "status": self = .status(try content())
        case "cancel": self = .cancel(try content())
        case "cancelled": self = .cancelled(try content())
        case "failure": self = .failure(try content())
        case let other:
            throw DecodingError.dataCorruptedError(forKey: .type, in: container, debugDescription: "unknown message '\(other)'")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .type)
        func say(_ content: some Encodable) throws { try container.encode(content, forKey: .content) }
        switch self {
        case .hello(let content): try say(content)
        case .welcome(let content): try say(content)
        case .refusal(let content): try say(content)
        case .heartbeat(let content): try say(content)
        case .heartbeatAnswer(let content): try say(content)
        case .lease(let content): try say(content)
        case .revoke(let content): try say(content)
        case .shardDone(let content): try say(content)
        case .shardFailed(let content): try say(content)
        case .credit(let content): try say(content)
        case .fetch(let content): try say(content)
        case .fetchFailed(let content): try say(content)
        case .drain: break
        case .goodbye(let content): try say(content)
        case .submit(let content): try say(content)
        case .submitted(let content): try say(content)
        case .statusRequest(let content): try say(content)
        case .status(let content): try say(content)
        case .cancel(let content): try say(content)
        case .cancelled(let content): try say(content)
        case .failure(let content): try say(content)
        }
    }

    /// The message's type on the wire.
    package var name: String {
        switch self {
        case .hello: "hello"
        case .welcome: "welcome"
        case .refusal: "refusal"
        case .heartbeat: "heartbeat"
        case .heartbeatAnswer: "heartbeatAnswer"
        case .lease: "lease"
        case .revoke: "revoke"
        case .shardDone: "shardDone"
        case .shardFailed: "shardFailed"
        case .credit: "credit"
        case .fetch: "fetch"
        case .fetchFailed: "fetchFailed"
        case .drain: "drain"
        case .goodbye: "goodbye"
        case .submit: "submit"
        case .submitted: "submitted"
        case .statusRequest: "statusRequest"
        case .status: "status"
        case .cancel: "cancel"
        case .cancelled: "cancelled"
        case .failure: "failure"
        }
    }
}

extension Message {
    /// A result must not overtake the blocks that it covers, nor a goodbye anything; other messages overtake data.
    private var frameType: FrameType {
        switch self {
        case .shardDone, .goodbye: .ordered
        default: .control
        }
    }

    /// The frame that carries the message.
    ///
    /// - Parameter urgent: whether the message goes ahead of data even if others of its kind do not.
    /// - Throws: `internal`, with the message's name and size, when the message is too large for a frame.
    package func frame(urgent: Bool = false) throws(TesseraError) -> Frame {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let body: Data
        do {
            body = try encoder.encode(self)
        } catch {
            throw TesseraError(.internal, "the message '\(name)' cannot be encoded: \(error)")
        }
        guard body.count <= Limits.controlBodyBytes else {
            throw TesseraError(
                .internal,
                "the message '\(name)' has \(body.count) bytes, more than the \(Limits.controlBodyBytes) bytes that a frame holds"
            )
        }
        return Frame(urgent ? .control : frameType, body: ByteBuffer(bytes: body))
    }

    /// Numbers and texts are not checked here: see `validate`.
    ///
    /// - Throws: `protocolMismatch` if the body is not a message.
    package init(_ frame: Frame) throws(TesseraError) {
        do {
            self = try JSONDecoder().decode(Message.self, from: Data(frame.body.readableBytesView))
        } catch {
            throw TesseraError(.protocolMismatch, "a control frame holds no valid message: \(error)")
        }
    }
}
