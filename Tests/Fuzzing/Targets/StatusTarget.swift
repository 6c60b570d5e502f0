import Coordinator
import Core
import Dispatch
import Glibc
import Logging
import Protocol
import ServiceLifecycle
import Synchronization
import Work

extension FuzzTarget {
    /// Bytes on a connection to the status port, and what it answers.
    static let status = FuzzTarget("status") { input in
        let answer = StatusPeer.shared.answer(to: input)
        let line = String(decoding: answer.prefix { $0 != 13 }, as: UTF8.self)
        precondition(answer.isEmpty || line.hasPrefix("HTTP/1.1 "), "an answer that is not HTTP: \(line)")
        precondition(!line.hasPrefix("HTTP/1.1 500"), "an answer that blames the coordinator")
    }
}

/// A coordinator's status port on this machine, and who asks it.
private final class StatusPeer: Sendable {
    static let shared = StatusPeer()
    private let port: UInt16

    private init() {
        let manager = JobManager(
            settings: .init(inputRoots: Roots(everythingIn: Folder.models), build: "fuzz", incarnation: 1),
            log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() })
        let found = Mutex(0), isOpen = DispatchSemaphore(value: 0)
        do {
            let service = try StatusPort.service(
                manager: manager, address: HostPort(host: "127.0.0.1", port: 0),
                log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() },
                onListening: { address in
                    found.withLock { $0 = address.port }
                    isOpen.signal()
                })
            Task.detached { try await service.run() }
        } catch {
            preconditionFailure("the status port cannot be opened: \(error)")
        }
        isOpen.wait()
        port = UInt16(found.withLock { $0 })
    }

    /// Bytes of an answer that are read: more than any head has.
    private static let answerLimit = 64 << 10

    /// Sends the bytes, and takes one answer, or the beginning of one that has no end.
    func answer(to bytes: [UInt8]) -> [UInt8] {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        // A reset at the end: no port waits for stragglers.
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        precondition(connected == 0, "the status port takes no connections any more: \(errno)")
        // The port may have closed before all is sent.
        _ = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        return read(descriptor)
    }

    private func read(_ descriptor: Int32) -> [UInt8] {
        var answer: [UInt8] = [], piece = [UInt8](repeating: 0, count: 16 << 10)
        while answer.count < Self.answerLimit, !Self.isWhole(answer) {
            var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // Silence: the request has no end yet.
            guard poll(&event, 1, 20) > 0 else { break }
            let count = recv(descriptor, &piece, piece.count, 0)
            guard count > 0 else { break }
            answer += piece[..<count]
        }
        return answer
    }

    /// Whether an answer has come as far as its head says.
    private static func isWhole(_ answer: [UInt8]) -> Bool {
        guard !answer.isEmpty, let end = answer.firstRange(of: Array("\r\n\r\n".utf8))?.upperBound else { return false }
        let head = String(decoding: answer[..<end], as: UTF8.self).lowercased()
        guard let length = head.firstRange(of: "content-length: ")?.upperBound else { return true }
        return answer.count - end >= Int(head[length...].prefix(while: \.isNumber)) ?? 0
    }
}
