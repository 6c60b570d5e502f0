import Core
import Glibc

/// Where a service manager listens: a datagram socket that keeps what services say.
package final class NotifySocket: Sendable {
    private let socket: Int32
    /// The value of NOTIFY_SOCKET.
    package let name: String

    /// - Parameter name: a path that does not exist, or `@` and the name of an abstract socket.
    package init(_ name: String) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(name.utf8), isAbstract = name.hasPrefix("@")
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: isAbstract ? [0] + bytes.dropFirst() : bytes) }
        socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        self.name = name
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(socket, $0, length) }
        }
        guard bound == 0 else { throw TesseraError(.io, "cannot bind: error \(errno)", file: name) }
    }

    deinit { close(socket) }

    /// The next message, if there is one.
    package func message() -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(socket, &buffer, buffer.count, 0)
        return count < 0 ? nil : String(decoding: buffer.prefix(count), as: UTF8.self)
    }

    /// Waits for a line of a message, and returns all lines up to it.
    package func lines(until end: @escaping (String) -> Bool) async throws -> [String] {
        var lines: [String] = []
        try await eventually("a line of \(lines)") {
            while let message = message() {
                lines += message.split(separator: "\n").map(String.init)
                if lines.contains(where: end) { return true }
            }
            return false
        }
        return lines
    }
}
