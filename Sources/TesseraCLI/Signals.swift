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

/// Runs `body` until it returns, or until SIGINT, SIGTERM or SIGHUP cancels it. A cancelled body ends in its own way, unless
/// another of these signals ends the process at once. So does SIGQUIT, in any case.
///
/// - Parameter onSignal: called at once when the first of them comes.
package func cancelledBySignals<Result: Sendable>(
    onSignal: @escaping @Sendable () -> Void = {}, _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup, .sigquit)
    let work = Task { try await body() }
    let listener = Task {
        for await signal in signals {
            if Interruption.signal != nil || signal == .sigquit {
                Keys.restoreTerminal()
                _exit(128 + signal.rawValue)
            }
            Interruption.note(signal)
            onSignal()
            work.cancel()
        }
    }
    defer { listener.cancel() }
    return try await withTaskCancellationHandler {
        try await work.value
    } onCancel: {
        work.cancel()
    }
}
