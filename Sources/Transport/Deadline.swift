/// Waits no longer than `limit`, also for what cannot be cancelled, such as the look-up of a host name.
///
/// - Parameter late: given a result that comes when nobody waits for it any more.
/// - Throws: `DeadlineExceeded`, and what `body` throws.
func within<Value: Sendable>(
    _ limit: Duration, late: @escaping @Sendable (Value) -> Void, _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    let (outcomes, input) = AsyncStream<Result<Value, any Error>>.makeStream(bufferingPolicy: .bufferingOldest(1))
    Task {
        let outcome: Result<Value, any Error>
        do { outcome = .success(try await body()) } catch { outcome = .failure(error) }
        if case .enqueued = input.yield(outcome) { return input.finish() }
        if case .success(let value) = outcome { late(value) }
    }
    let clock = Task {
        try await Task.sleep(for: limit)
        input.yield(.failure(DeadlineExceeded()))
        input.finish()
    }
    defer {
        clock.cancel()
        input.finish()
    }
    for await outcome in outcomes { return try outcome.get() }
    throw CancellationError()
}

struct DeadlineExceeded: Error {}
