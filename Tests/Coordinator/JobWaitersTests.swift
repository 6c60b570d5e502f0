import Protocol
import Testing

@testable import Coordinator

@Suite struct JobWaitersTests {
    /// Waiters belong to one actor at a time.
    private actor Owner {
        var waiters = JobWaiters()

        func wait(for id: JobID) async {
            let number = waiters.number()
            await withCheckedContinuation { waiters.add($0, number: number, for: id) }
        }

        func ended(_ id: JobID) { waiters.ended(id) }
        func stop(_ number: Int, for id: JobID) { waiters.stop(number, for: id) }
        var count: Int { waiters.count }
    }

    @Test func theEndOfAJobWakesThoseWhoWaitForIt() async {
        let owner = Owner(), first = JobID(high: 1, low: 1), second = JobID(high: 1, low: 2)
        await withDiscardingTaskGroup { group in
            for id in [first, first, second] { group.addTask { await owner.wait(for: id) } }
            while await owner.count < 3 { await Task.yield() }
            await owner.ended(first)
            #expect(await owner.count == 1)
            await owner.ended(first)
            // The number of whoever waits for the second job, and numbers that nobody has.
            for number in 0..<9 { await owner.stop(number, for: second) }
            #expect(await owner.count == 0)
        }
    }
}
