import Glibc
import Synchronization
import UnixSignals

/// The signal that ended the command.
package enum Interruption {
    private static let received = Mutex<Int32?>(nil)

    /// `nil` where no signal came.
    package static var signal: Int32? { received.withLock { $0 } }

    /// What shells expect of a command that a signal ended: 128 and the signal's number.
    package static var exitCode: Int32? { signal.map { 128 + $0 } }

    static func note(_ signal: UnixSignal) { received.withLock { $0 = signal.rawValue } }
}

/// Runs `body` until it returns, or until SIGINT, SIGTERM or SIGHUP cancels it.
///
/// - Parameter onSignal: called at once when one of them comes.
package func cancelledBySignals<Result: Sendable>(
    onSignal: @escaping @Sendable () -> Void = {}, _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    return try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            for await signal in signals {
                Interruption.note(signal)
                onSignal()
                break
            }
            return nil
        }
        defer { group.cancelAll() }
        // Either the body has finished or a signal arrived. After a signal the body is cancelled and ends in its own way.
        if let result = try await group.next(), let result { return result }
        group.cancelAll()
        guard let result = try await group.next(), let result else { throw CancellationError() }
        return result
    }
}
