import Operators
import Synchronization
import Testing

/// Memory is reserved in the order of requests, and released.
@Suite struct MemoryBudgetTests {
    /// Threads are what a worker says it has.
    @Test func needsBeyondAnyNumberSaturate() {
        #expect(MemoryNeed(shared: 1, perThread: 1).byteCount(threads: .max) == .max)
        #expect(MemoryNeed(shared: 0, perThread: 1 << 40).byteCount(threads: 1 << 46) == .max)
        #expect((MemoryNeed(shared: .max, perThread: 1) + MemoryNeed(shared: 1, perThread: .max)).shared == .max)
        #expect(MemoryNeed(shared: 5, perThread: 7).byteCount(threads: 3) == 26)
    }

    @Test func whatIsLentIsNotLentAgain() {
        let budget = MemoryBudget(bytes: 10)
        let first = budget.reserve(6)
        #expect(first?.byteCount == 6 && budget.reserve(5) == nil)
        let rest = budget.reserve(upTo: 100)
        #expect(rest.byteCount == 4 && budget.reserve(upTo: 1).byteCount == 0)
        rest.release()
        rest.release()
        #expect(budget.reserve(upTo: 100).byteCount == 4)
    }

    @Test func aReservationEndsWithItsHolder() {
        let budget = MemoryBudget(bytes: 10)
        do {
            let reservation = budget.reserve(10)
            #expect(budget.reserve(1) == nil)
            withExtendedLifetime(reservation) {}
        }
        #expect(budget.reserve(10) != nil)
    }

    private final class Order: Sendable {
        private let entries = Mutex<[Int]>([])
        func append(_ entry: Int) { entries.withLock { $0.append(entry) } }
        var all: [Int] { entries.withLock { $0 } }
    }

    @Test func nobodyIsPassedOver() async throws {
        let budget = MemoryBudget(bytes: 10), order = Order()
        var reservations = [try #require(budget.reserve(4)), try #require(budget.reserve(4))]
        try await withThrowingTaskGroup(of: Void.self) { group in
            for bytes in [9, 2] {
                group.addTask {
                    let reservation = await budget.reserveWhenFree(bytes)
                    order.append(bytes)
                    reservation.release()
                }
                // Two bytes are free, and not for those who come later.
                while budget.reserve(1) != nil { await Task.yield() }
            }
            #expect(budget.reserve(upTo: 1).byteCount == 0)
            reservations.removeLast().release()
            #expect(order.all == [])
            reservations.removeLast().release()
            try await group.waitForAll()
        }
        #expect(order.all == [9, 2])
        #expect(budget.reserve(10) != nil)
    }

    @Test func asMuchAsThereIsIsEnough() async {
        let budget = MemoryBudget(bytes: 10)
        #expect(await budget.reserveWhenFree(1_000).byteCount == 10)
    }
}
