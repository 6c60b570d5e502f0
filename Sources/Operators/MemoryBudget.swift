import Synchronization

/// Bytes of memory that the work on one tensor takes. Mapped inputs do not count.
package struct MemoryNeed: Sendable, Hashable {
    /// Bytes, whatever the number of threads.
    package var shared: Int
    /// Bytes for each thread that works on the tensor.
    package var perThread: Int

    package init(shared: Int = 0, perThread: Int = 0) {
        self.shared = shared
        self.perThread = perThread
    }

    /// Bytes for so many threads; `Int.max` where they do not fit an `Int`.
    package func byteCount(threads: Int) -> Int {
        let (product, overflows) = threads.multipliedReportingOverflow(by: perThread)
        return overflows ? .max : Self.sum(shared, product)
    }

    package static func + (left: MemoryNeed, right: MemoryNeed) -> MemoryNeed {
        MemoryNeed(shared: sum(left.shared, right.shared), perThread: sum(left.perThread, right.perThread))
    }

    private static func sum(_ left: Int, _ right: Int) -> Int {
        let (sum, overflows) = left.addingReportingOverflow(right)
        return overflows ? .max : sum
    }

    package static func - (left: MemoryNeed, right: MemoryNeed) -> MemoryNeed {
        MemoryNeed(shared: left.shared - right.shared, perThread: left.perThread - right.perThread)
    }

    /// The least need that covers both.
    package func union(_ other: MemoryNeed) -> MemoryNeed {
        MemoryNeed(shared: max(shared, other.shared), perThread: max(perThread, other.perThread))
    }
}

/// The memory that all tensors being worked on share. Work on a tensor begins when what it needs can be reserved.
///
/// Operations that are faster with more memory may reserve some of what is free. Results never depend on how much they got.
package final class MemoryBudget: Sendable {
    private struct State {
        var free: Int
        /// First come, first served, so that a large request does not starve.
        var waiting: [(bytes: Int, turn: CheckedContinuation<Void, Never>)] = []
    }

    /// Bytes.
    package let total: Int
    private let state: Mutex<State>

    package init(bytes: Int) {
        total = max(0, bytes)
        state = Mutex(State(free: max(0, bytes)))
    }

    /// Reserves `bytes` if they are free and nobody is waiting.
    package func reserve(_ bytes: Int) -> MemoryReservation? {
        let isTaken = state.withLock { state in
            guard state.waiting.isEmpty, state.free >= bytes else { return false }
            state.free -= bytes
            return true
        }
        return isTaken ? MemoryReservation(bytes, of: self) : nil
    }

    /// Reserves what is free, up to `bytes`; nothing while somebody is waiting.
    package func reserve(upTo bytes: Int) -> MemoryReservation {
        let taken = state.withLock { state in
            guard state.waiting.isEmpty else { return 0 }
            let taken = max(0, min(bytes, state.free))
            state.free -= taken
            return taken
        }
        return MemoryReservation(taken, of: self)
    }

    /// Waits until `bytes`, or `total` if that is less, are free, and reserves them.
    package func reserveWhenFree(_ bytes: Int) async -> MemoryReservation {
        let bytes = min(bytes, total)
        await withCheckedContinuation { turn in
            wake { $0.waiting.append((bytes, turn)) }
        }
        return MemoryReservation(bytes, of: self)
    }

    fileprivate func release(_ bytes: Int) { wake { $0.free += bytes } }

    private func wake(_ change: (inout State) -> Void) {
        let woken = state.withLock { state in
            change(&state)
            var woken: [CheckedContinuation<Void, Never>] = []
            while let next = state.waiting.first, next.bytes <= state.free {
                state.free -= next.bytes
                woken.append(state.waiting.removeFirst().turn)
            }
            return woken
        }
        for turn in woken { turn.resume() }
    }
}

/// Reserved memory of a budget. It is released by `release` or when the last reference goes.
package final class MemoryReservation: Sendable {
    package let byteCount: Int
    private let budget: MemoryBudget
    private let isOut = Atomic(true)

    fileprivate init(_ byteCount: Int, of budget: MemoryBudget) {
        self.byteCount = byteCount
        self.budget = budget
    }

    deinit { release() }

    package func release() {
        if isOut.exchange(false, ordering: .relaxed) { budget.release(byteCount) }
    }
}
