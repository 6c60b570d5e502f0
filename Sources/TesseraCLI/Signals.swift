import Glibc
import UnixSignals

/// Runs `body` until it returns, or until SIGINT, SIGTERM or SIGHUP cancels it.
package func cancelledBySignals<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    return try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            for await _ in signals { return nil }
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
