import Synchronization

/// The events of all jobs, for any number of readers.
package final class JobEventStream: Sendable {
    private struct State {
        var readers: [Int: AsyncStream<JobEvent>.Continuation] = [:]
        var nextReader = 0
    }

    private let state = Mutex(State())

    /// Events that may wait for one reader.
    private static let limit = 4096

    /// All events from now on. The stream ends for a reader that falls too far behind: what it would miss cannot be made good by
    /// later events, so it has to begin again with a status.
    package func events() -> AsyncStream<JobEvent> {
        let (events, input) = AsyncStream<JobEvent>.makeStream(bufferingPolicy: .bufferingOldest(Self.limit))
        let number = state.withLock { state in
            state.nextReader += 1
            state.readers[state.nextReader] = input
            return state.nextReader
        }
        input.onTermination = { [weak self] _ in self?.state.withLock { _ = $0.readers.removeValue(forKey: number) } }
        return events
    }

    func send(_ event: JobEvent) {
        for (number, reader) in state.withLock({ $0.readers }) {
            guard case .dropped = reader.yield(event) else { continue }
            state.withLock { _ = $0.readers.removeValue(forKey: number) }
            reader.finish()
        }
    }
}
