import Synchronization

/// Bytes of memory that work on one tensor takes, beside inputs that are mapped.
package struct MemoryNeed: Sendable, Hashable {
    /// Once, however many threads work on the tensor.
    package var shared: Int
    /// For each thread that does.
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

    /// What is enough for either.
    package func union(_ other: MemoryNeed) -> MemoryNeed {
        MemoryNeed(shared: max(shared, other.shared), perThread: max(perThread, other.perThread))
    }
}

/// The memory that the tensors at work share: none begins before what it needs is free.
///
/// What is left over is lent to those that do with less but are faster with more. Results never depend on how much there was.
package final class MemoryBudget: Sendable {
    private struct State {
        var free: Int
        /// In the order in which they came, so that a large need is not passed over for ever.
        var waiting: [(bytes: Int, turn: CheckedContinuation<Void, Never>)] = []
    }

    /// Bytes.
    package let total: Int
    private let state: Mutex<State>

    package init(bytes: Int) {
        total = max(0, bytes)
        state = Mutex(State(free: max(0, bytes)))
    }

    /// Takes `bytes` if they are free and nobody waits.
    package func reserve(_ bytes: Int) -> MemoryReservation? {
        let isTaken = state.withLock { state in
            guard state.waiting.isEmpty, state.free >= bytes else { return false }
            state.free -= bytes
            return true
        }
        return isTaken ? MemoryReservation(bytes, of: self) : nil
    }

    /// Takes at most `bytes`, and nothing while somebody waits.
    package func reserve(upTo bytes: Int) -> MemoryReservation {
        let taken = state.withLock { state in
            guard state.waiting.isEmpty else { return 0 }
            let taken = max(0, min(bytes, state.free))
            state.free -= taken
            return taken
        }
        return MemoryReservation(taken, of: self)
    }

    /// Takes `bytes`, at most `total`, as soon as they are free.
    package func reserveWhenFree(_ bytes: Int) async -> MemoryReservation {
        let bytes = min(bytes, total)
        await withCheckedContinuation { turn in
            wake { $0.waiting.append((bytes, turn)) }
        }
        return MemoryReservation(bytes, of: self)
    }

    fileprivate func giveBack(_ bytes: Int) { wake { $0.free += bytes } }

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

/// Some of a budget's memory, until it is given back or nobody has the loan any more.
package final class MemoryReservation: Sendable {
    package let byteCount: Int
    private let budget: MemoryBudget
    private let isOut = Atomic(true)

    fileprivate init(_ byteCount: Int, of budget: MemoryBudget) {
        self.byteCount = byteCount
        self.budget = budget
    }

    deinit { giveBack() }

    package func giveBack() {
        if isOut.exchange(false, ordering: .relaxed) { budget.giveBack(byteCount) }
    }
}
