package import Core
import NIOCore

/// Why bytes from a peer are not a frame. The connection must close, since the start of the next frame is unknown.
package enum FrameError: Error, Sendable, Hashable {
    case notTessera(String)
    case tls
    case damagedHeader
    case damagedBody
    case version(UInt16)
    case unknownType(UInt16)
    case reservedBits
    /// A frame that this peer may not send.
    case unexpectedType(FrameType)
    case tooLarge(Int, limit: Int)
    case outOfOrder(expected: UInt64, found: UInt64)
    case truncated
    /// A frame that came more slowly than `Limits.slowestFrameRate`.
    case stalled

    /// What the bytes are instead of a frame, by their looks.
    static func guess(_ buffer: ByteBuffer) -> FrameError {
        let start = buffer.getString(at: buffer.readerIndex, length: 4) ?? ""
        if ["GET ", "POST", "HEAD", "PUT ", "OPTI", "DELE", "PRI "].contains(start) {
            return .notTessera("this is the job port, which does not speak HTTP; the status port does")
        }
        if start == "HTTP" { return .notTessera("the peer speaks HTTP; the coordinator's job port is another one") }
        // The first byte of a TLS record: a handshake message or an alert.
        if let byte = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self), [0x15, 0x16].contains(byte) {
            return .tls
        }
        return .notTessera("the peer does not speak Tessera's protocol")
    }
}

extension FrameError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .notTessera(let guess): guess
        case .tls: "the peer speaks TLS, this side does not"
        case .damagedHeader: "a frame header does not match its checksum"
        case .damagedBody: "a frame body does not match its checksum"
        case .version(let version): "the peer speaks protocol \(version), this build speaks \(FrameHeader.protocolVersion)"
        case .unknownType(let type): "a frame of the unknown type \(type)"
        case .reservedBits: "a frame with reserved bits set"
        case .unexpectedType(let type): "a '\(type)' frame, which this peer may not send"
        case .tooLarge(let length, let limit): "a frame of \(length) bytes, more than the \(limit) that its type allows"
        case .outOfOrder(let expected, let found): "frame \(found) came where \(expected) was expected"
        case .truncated: "the connection ended in the middle of a frame"
        case .stalled: "a frame did not end in time"
        }
    }

    /// Whether the peer or the network garbled the bytes. A stream that ends within a frame is a lost connection instead.
    package var isDamage: Bool { self != .truncated }

    /// Whether the peer is told in a frame: a TLS client sees that this is no TLS, another build that this is another version.
    package var isAnswered: Bool {
        switch self {
        case .tls, .version: true
        default: false
        }
    }

    /// The error as users see it.
    ///
    /// - Parameter isGreeting: whether the peer has not sent a valid frame yet. If so, the error describes the kind of peer, and
    ///   a retry is pointless. Otherwise it describes a broken connection.
    package func asTesseraError(isGreeting: Bool) -> TesseraError {
        switch self {
        case .tls:
            TesseraError(
                isGreeting ? .protocolMismatch : .unreachable, description, advice: "give both sides the TLS options, or none")
        case .notTessera, .version, .unknownType, .reservedBits, .unexpectedType, .tooLarge:
            TesseraError(isGreeting ? .protocolMismatch : .unreachable, description)
        case .damagedHeader, .damagedBody, .outOfOrder, .truncated, .stalled: TesseraError(.unreachable, description)
        }
    }
}
