package import Core
import FoundationEssentials
import NIOCore

/// Everything that is said in JSON: `{"type": "lease", "content": {...}}`. Unknown keys are ignored.
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
    /// A worker takes no more leases and leaves when its last one is over; the coordinator answers with the same, and no lease follows.
    case drain
    /// The sender is about to close the connection, and why.
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
        func say(_ type: String, _ content: some Encodable) throws {
            try container.encode(type, forKey: .type)
            try container.encode(content, forKey: .content)
        }
        switch self {
        case .hello(let content): try say("hello", content)
        case .welcome(let content): try say("welcome", content)
        case .refusal(let content): try say("refusal", content)
        case .heartbeat(let content): try say("heartbeat", content)
        case .heartbeatAnswer(let content): try say("heartbeatAnswer", content)
        case .lease(let content): try say("lease", content)
        case .revoke(let content): try say("revoke", content)
        case .shardDone(let content): try say("shardDone", content)
        case .shardFailed(let content): try say("shardFailed", content)
        case .credit(let content): try say("credit", content)
        case .fetch(let content): try say("fetch", content)
        case .fetchFailed(let content): try say("fetchFailed", content)
        case .drain: try container.encode("drain", forKey: .type)
        case .goodbye(let content): try say("goodbye", content)
        case .submit(let content): try say("submit", content)
        case .submitted(let content): try say("submitted", content)
        case .statusRequest(let content): try say("statusRequest", content)
        case .status(let content): try say("status", content)
        case .cancel(let content): try say("cancel", content)
        case .cancelled(let content): try say("cancelled", content)
        case .failure(let content): try say("failure", content)
        }
    }
}

extension Message {
    /// A result stays behind the blocks that it vouches for, and a goodbye behind all; everything else goes before them.
    private var frameType: FrameType {
        switch self {
        case .shardDone, .goodbye: .ordered
        default: .control
        }
    }

    /// The frame that carries the message.
    ///
    /// - Parameter urgent: whether it goes before data in any case.
    /// - Throws: `internal` when the message is too large for one.
    package func frame(urgent: Bool = false) throws(TesseraError) -> Frame {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let body: Data
        do {
            body = try encoder.encode(self)
        } catch {
            throw TesseraError(.internal, "a message cannot be encoded: \(error)")
        }
        guard body.count <= Limits.controlBodyBytes else {
            throw TesseraError(
                .internal, "a message of \(body.count) bytes, more than the \(Limits.controlBodyBytes) that a frame carries")
        }
        return Frame(urgent ? .control : frameType, body: ByteBuffer(bytes: body))
    }

    /// - Throws: `protocolMismatch` for a body that is no message.
    package init(_ frame: Frame) throws(TesseraError) {
        do {
            self = try JSONDecoder().decode(Message.self, from: Data(frame.body.readableBytesView))
        } catch {
            throw TesseraError(.protocolMismatch, "a control frame that is no message: \(error)")
        }
    }
}
