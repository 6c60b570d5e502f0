import Dispatch
import Glibc

/// A TCP connection without any protocol, for peers that behave badly.
final class RawConnection: Sendable {
    private let descriptor: Int32

    struct Failure: Error { let number = errno }

    /// - Parameter address: such as `127.0.0.1:7070`.
    init(_ address: String) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var target = Self.loopback(port: address.split(separator: ":").last.flatMap { UInt16($0) } ?? 0)
        let result = withUnsafePointer(to: &target) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard result == 0 else { throw Failure() }
        // A test that waits for ever helps nobody.
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    fileprivate init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    fileprivate static func loopback(port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    func send(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

    /// What the peer says next, at most 64 KiB; nothing at the end.
    func read() async -> [UInt8] {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async { [self] in
                var room = [UInt8](repeating: 0, count: 1 << 16)
                let count = recv(descriptor, &room, room.count, 0)
                continuation.resume(returning: Array(room.prefix(max(0, count))))
            }
        }
    }

    func readToEnd() async -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let piece = await read()
            if piece.isEmpty { return all }
            all += piece
        }
    }
}

/// A port on loopback that takes one connection after the other.
final class RawListener: Sendable {
    private let descriptor: Int32
    let port: UInt16

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = RawConnection.loopback(port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) | listen(descriptor, 8) | getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else { throw RawConnection.Failure() }
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }

    func accept() async -> RawConnection {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async { [self] in
                continuation.resume(returning: RawConnection(descriptor: Glibc.accept(descriptor, nil, nil)))
            }
        }
    }
}
