import Operators
import Synchronization
import Testing

/// Memory is lent in the order in which it was asked for, and comes back.
@Suite struct MemoryBudgetTests {
    @Test func whatIsLentIsNotLentAgain() {
        let budget = MemoryBudget(bytes: 10)
        let first = budget.take(6)
        #expect(first?.byteCount == 6 && budget.take(5) == nil)
        let rest = budget.take(upTo: 100)
        #expect(rest.byteCount == 4 && budget.take(upTo: 1).byteCount == 0)
        rest.giveBack()
        rest.giveBack()
        #expect(budget.take(upTo: 100).byteCount == 4)
    }

    @Test func aLoanEndsWithItsHolder() {
        let budget = MemoryBudget(bytes: 10)
        do {
            let loan = budget.take(10)
            #expect(budget.take(1) == nil)
            withExtendedLifetime(loan) {}
        }
        #expect(budget.take(10) != nil)
    }

    private final class Order: Sendable {
        private let entries = Mutex<[Int]>([])
        func append(_ entry: Int) { entries.withLock { $0.append(entry) } }
        var all: [Int] { entries.withLock { $0 } }
    }

    @Test func nobodyIsPassedOver() async throws {
        let budget = MemoryBudget(bytes: 10), order = Order()
        var loans = [try #require(budget.take(4)), try #require(budget.take(4))]
        try await withThrowingTaskGroup(of: Void.self) { group in
            for bytes in [9, 2] {
                group.addTask {
                    let loan = await budget.takeWhenFree(bytes)
                    order.append(bytes)
                    loan.giveBack()
                }
                // Two bytes are free, and not for those who come later.
                while budget.take(1) != nil { await Task.yield() }
            }
            #expect(budget.take(upTo: 1).byteCount == 0)
            loans.removeLast().giveBack()
            #expect(order.all == [])
            loans.removeLast().giveBack()
            try await group.waitForAll()
        }
        #expect(order.all == [9, 2])
        #expect(budget.take(10) != nil)
    }

    @Test func asMuchAsThereIsIsEnough() async {
        let budget = MemoryBudget(bytes: 10)
        #expect(await budget.takeWhenFree(1_000).byteCount == 10)
    }
}
