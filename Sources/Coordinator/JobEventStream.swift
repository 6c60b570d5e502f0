import Synchronization

/// The events of all jobs, for any number of readers.
package final class JobEventStream: Sendable {
    private struct State {
        var readers: [Int: AsyncStream<JobEvent>.Continuation] = [:]
        var listeners: [Int: @Sendable (JobEvent) -> Void] = [:]
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

    /// A listener, until nobody holds it.
    final class Listener: Sendable {
        private let remove: @Sendable () -> Void

        fileprivate init(remove: @escaping @Sendable () -> Void) { self.remove = remove }

        deinit { remove() }
    }

    /// - Parameter note: called with every event from now on, while whoever decides waits: must not wait itself.
    func listen(_ note: @escaping @Sendable (JobEvent) -> Void) -> Listener {
        let number = state.withLock { state in
            state.nextReader += 1
            state.listeners[state.nextReader] = note
            return state.nextReader
        }
        return Listener { [weak self] in self?.state.withLock { _ = $0.listeners.removeValue(forKey: number) } }
    }

    func send(_ event: JobEvent) {
        for listener in state.withLock({ $0.listeners.values }) { listener(event) }
        for (number, reader) in state.withLock({ $0.readers }) {
            guard case .dropped = reader.yield(event) else { continue }
            state.withLock { _ = $0.readers.removeValue(forKey: number) }
            reader.finish()
        }
    }
}
