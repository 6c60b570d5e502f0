import Core
import Logging
import Protocol
import Synchronization

/// Logs whom and what both ports refuse, for those who watch for intruders: with address, name, and what was asked for.
///
/// Whoever is refused can ask again at once, so only so many lines are written in a minute, and the next one says how many were
/// left out.
final class RefusalLog: Sendable {
    enum Kind: String, Sendable {
        /// Never admitted: a wrong token, certificate, role or protocol.
        case peer = "refused a peer"
        /// Admitted, and asked for more than its role, its jobs or the roots allow.
        case request = "refused a request"
    }

    private let log: Logger
    private let time: TimeSource
    private let limit = Mutex(RefusalLimit())

    /// Bytes of what a peer says, in a line.
    private static let textLimit = 300

    init(log: Logger, time: TimeSource) {
        self.log = log
        self.time = time
    }

    /// - Parameters:
    ///   - name: of the peer: its proven name where it has one, else what it calls itself.
    ///   - asked: what for.
    func note(_ kind: Kind, address: String?, name: String? = nil, asked: String, reason: String) {
        let address = address ?? "unknown"
        guard let leftOut = limit.withLock({ $0.take(address, at: time.now()) }) else { return }
        var metadata: Logger.Metadata = [
            "address": "\(address)", "asked": "\(asked.shortened(to: Self.textLimit))",
            "reason": "\(reason.shortened(to: Self.textLimit))",
        ]
        if let name { metadata["peer"] = "\(name.shortened(to: Self.textLimit))" }
        if leftOut > 0 { metadata["left_out"] = .stringConvertible(leftOut) }
        log.warning("\(kind.rawValue)", metadata: metadata)
    }
}

/// How many refusals are logged: some of each address, and some in all, a minute.
struct RefusalLimit {
    static let window = Duration.seconds(60), perAddress = 10, inAll = 100

    private var begun = Duration.zero
    private var logged: [String: Int] = [:]
    private var count = 0
    private var leftOut = 0

    /// - Returns: how many refusals were left out before this one; `nil` where this one is left out as well.
    mutating func take(_ address: String, at now: Duration) -> Int? {
        if now - begun >= Self.window { (begun, logged, count) = (now, [:], 0) }
        guard count < Self.inAll, logged[address, default: 0] < Self.perAddress else {
            leftOut += 1
            return nil
        }
        count += 1
        logged[address, default: 0] += 1
        defer { leftOut = 0 }
        return leftOut
    }
}

extension Message {
    /// What a client's request asks for, for the log.
    var asked: String {
        switch self {
        case .submit(let submission): "to submit \(submission.output)"
        case .cancel(let cancel): "to cancel \(cancel.job)"
        case .statusRequest: "for the status"
        default: name
        }
    }
}
