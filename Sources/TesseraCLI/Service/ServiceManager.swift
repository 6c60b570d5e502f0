import Core
import FoundationEssentials
import Glibc
import Synchronization

/// The systemd that started this process, if one did and wants to hear of it.
final class ServiceManager: Sendable {
    private let socket: Int32
    private let address: sockaddr_un
    private let length: socklen_t
    private let notices: Mutex<ServiceNotices>
    private let time: TimeSource

    /// - Parameter environment: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` with `WATCHDOG_PID`, as sd_notify(3) and
    ///   sd_watchdog_enabled(3) describe them.
    /// - Returns: `nil` where no service manager listens.
    /// - Throws: `usage` for a socket that is not one, `io` where the system has no more sockets.
    init?(
        environment: [String: String] = ProcessInfo.processInfo.environment, time: TimeSource = .system
    ) throws(TesseraError) {
        guard let path = environment["NOTIFY_SOCKET"], !path.isEmpty else { return nil }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard let first = name.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"), name.count < room else {
            throw TesseraError(
                .usage, "NOTIFY_SOCKET is '\(path)', which is no Unix socket of at most \(room - 1) bytes",
                advice: "unset it, unless systemd set it")
        }
        // The name of an abstract socket begins with a zero byte, and does not end with one.
        if first == UInt8(ascii: "@") { name[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .system(errno, "open a socket for", path) }
        socket = descriptor
        self.address = address
        length = socklen_t(MemoryLayout<sockaddr_un>.size - room + name.count)
        notices = Mutex(ServiceNotices(watchdog: Self.watchdog(environment)))
        self.time = time
    }

    deinit { close(socket) }

    private static func watchdog(_ environment: [String: String]) -> Duration? {
        guard let text = environment["WATCHDOG_USEC"], let microseconds = Int64(text), microseconds > 0 else { return nil }
        // Set by the parent of a process that is not watched itself.
        if let pid = environment["WATCHDOG_PID"], pid != String(getpid()) { return nil }
        return .microseconds(microseconds)
    }

    /// The service does from now on what it is there for. Waits until the manager has room for the message.
    func isReady() { send("READY=1", flags: 0) }

    /// Once in each turn of the loop that does the work. Does not wait: what the manager has no room for is lost.
    ///
    /// - Parameter status: one line that says what the service does.
    func tick(_ status: String) {
        let now = time.now()
        guard let message = notices.withLock({ $0.tick(status, at: now) }) else { return }
        send(message, flags: Int32(MSG_DONTWAIT))
    }

    private func send(_ message: String, flags: Int32) {
        var address = address
        let bytes = Array(message.utf8)
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = sendto(socket, bytes, bytes.count, flags | Int32(MSG_NOSIGNAL), $0, length)
            }
        }
    }
}
