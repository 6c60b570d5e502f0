package import Core
import NIOCore

/// Why bytes from a peer are no frame. The connection is over: nothing says where the next frame would begin.
package enum FrameError: Error, Sendable, Hashable {
    case notTessera(String)
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

    /// What the bytes look like instead.
    static func guess(_ buffer: ByteBuffer) -> String {
        let start = buffer.getString(at: buffer.readerIndex, length: 4) ?? ""
        if ["GET ", "POST", "HEAD", "PUT ", "OPTI", "DELE", "PRI "].contains(start) {
            return "this is the job port, which does not speak HTTP; the status port does"
        }
        if buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) == 0x16 {
            return "the peer speaks TLS, this port does not"
        }
        return "the peer does not speak Tessera's protocol"
    }
}

extension FrameError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .notTessera(let guess): guess
        case .damagedHeader: "a frame header does not match its checksum"
        case .damagedBody: "a frame body does not match its checksum"
        case .version(let version): "the peer speaks protocol \(version), this build speaks \(FrameHeader.protocolVersion)"
        case .unknownType(let type): "a frame of the unknown type \(type)"
        case .reservedBits: "a frame with reserved bits set"
        case .unexpectedType(let type): "a '\(type)' frame, which this peer may not send"
        case .tooLarge(let length, let limit): "a frame of \(length) bytes, more than the \(limit) that its type allows"
        case .outOfOrder(let expected, let found): "frame \(found) came where \(expected) was expected"
        case .truncated: "the connection ended in the middle of a frame"
        }
    }

    /// Whether the peer, or what lies between, garbled bytes. The end of a stream in the middle of a frame is a lost connection
    /// instead.
    package var isDamage: Bool { self != .truncated }

    /// The error as users see it.
    ///
    /// - Parameter isGreeting: whether the peer has not said anything valid yet. Only then does the error tell what kind of peer
    ///   it is, and another try is pointless. Later on, the error tells of a broken connection.
    package func asTesseraError(isGreeting: Bool) -> TesseraError {
        switch self {
        case .notTessera, .version, .unknownType, .reservedBits, .unexpectedType, .tooLarge:
            TesseraError(isGreeting ? .protocolMismatch : .unreachable, description)
        case .damagedHeader, .damagedBody, .outOfOrder, .truncated: TesseraError(.unreachable, description)
        }
    }
}
