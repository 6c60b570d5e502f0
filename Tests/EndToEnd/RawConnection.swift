import Foundation
import Glibc
import Protocol

/// A TCP connection without any protocol, for peers that behave badly.
final class RawConnection: Sendable {
    private let descriptor: Int32

    struct Failure: Error { let number = errno }

    /// - Parameter address: such as `127.0.0.1:7070`.
    init(_ address: String) throws {
        descriptor = openSocket(waiting: 60)
        var target = Self.loopback(port: address.split(separator: ":").last.flatMap { UInt16($0) } ?? 0)
        let result = withUnsafePointer(to: &target) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Failure() }
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

    /// Ends the connection with a reset when the value goes.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    }

    /// What the peer says next, at most 64 KiB; nothing at the end.
    func read() async -> [UInt8] {
        await onOwnThread { [self] in
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            return Array(buffer.prefix(max(0, count)))
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
        descriptor = openSocket(waiting: 1)
        var address = RawConnection.loopback(port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) | listen(descriptor, 8) | getsockname(descriptor, $0, &length)
            }
        }
        guard result == 0 else { throw RawConnection.Failure() }
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }

    /// The next connection; `nil` when none comes for a while.
    func accept() async -> RawConnection? {
        await onOwnThread { [self] in
            let connection = Glibc.accept(descriptor, nil, nil)
            return connection < 0 ? nil : RawConnection(descriptor: connection)
        }
    }
}

/// A socket that no process started meanwhile inherits, and that waits for so many seconds: a test that waits for ever helps
/// nobody.
private func openSocket(waiting seconds: Int) -> Int32 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var limit = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    return descriptor
}

/// Calls that wait would starve the few threads that all tests share.
private func onOwnThread<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: body()) }
    }
}
