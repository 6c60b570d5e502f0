import Protocol
import Synchronization
import TestSupport
import Testing
import Work

@testable import Coordinator

/// Owners take turns at planning, however much one of them asks for.
@Suite(.timeLimit(.minutes(15))) struct FairTurnsTests {
    @Test func nobodyHasAllSlots() {
        var turns = FairTurns<Int>(slots: 3)
        #expect((0..<6).flatMap { turns.ask($0, of: "a") } == [0, 1])
        #expect(turns.ask(6, of: "b") == [6])
        // With all slots taken, the one that frees up goes to the owner with the fewest.
        #expect((7..<9).flatMap { turns.ask($0, of: "b") } == [])
        #expect(turns.ask(9, of: "c") == [])
        #expect(turns.end(of: "a") == [9])
        #expect(turns.end(of: "a") == [2])
        #expect(turns.end(of: "c") == [7])
        #expect(turns.end(of: "b") == [3])
        // Without others, an owner still leaves a slot free.
        #expect(turns.end(of: "b") == [8])
        #expect(turns.end(of: "b") == [])
        #expect(turns.ask(10, of: "d") == [10])
    }

    @Test func ownersTakeTurns() {
        var turns = FairTurns<String>(slots: 1), begun = turns.ask("a1", of: "a")
        for (waiter, owner) in [("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")] {
            #expect(turns.ask(waiter, of: owner) == [])
        }
        while let last = begun.last?.first {
            let next = turns.end(of: String(last))
            if next.isEmpty { break }
            begun += next
        }
        #expect(begun == ["a1", "a2", "b1", "c1", "a3", "b2"])
        // Nobody is left, and a slot is free.
        #expect(turns.ask("d1", of: "d") == ["d1"])
    }

    /// Six submissions that take long once held up those of all others.
    @Test func anotherOwnersPlanDoesNotWait() async throws {
        let jobs = try TestJobs(), held = Mutex<[@Sendable (Bool) -> Void]>([])
        let pools = BlockingPools { threads in
            guard threads == BlockingPools.planningThreads else { return BlockingPool(threads: threads) }
            return BlockingPool(submit: { call in held.withLock { $0.append(call) } })
        }
        let manager = JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 1), log: .silent,
            outputs: MemoryOutputStore(), pools: pools)
        func submit(_ output: String, by owner: String) -> Task<Submitted, any Error> {
            let peer = PeerIdentity(name: owner, roles: [.submitter], owner: owner), submission = jobs.submission(output: output)
            return Task { try await manager.submit(submission, by: peer) }
        }
        /// Lets the calls behind the first few go on until the condition holds.
        func run(after count: Int, until isDone: @escaping @Sendable () -> Bool) async throws {
            try await eventually("the plans to be made") {
                for call in held.withLock({ held in
                    defer { held.removeSubrange(min(count, held.count)...) }
                    return held.dropFirst(count)
                }) { call(true) }
                return isDone()
            }
        }
        let greedy = (0..<6).map { submit("/a\($0)", by: "a") }
        try await eventually("plans on their threads") { held.withLock { $0.count } == 2 }
        let isDone = Atomic(false), modest = submit("/b", by: "b")
        let waiter = Task {
            _ = try await modest.value
            isDone.store(true, ordering: .relaxed)
        }
        try await run(after: 2) { isDone.load(ordering: .relaxed) }
        try await waiter.value
        #expect(held.withLock { $0.count } == 2)
        let areDone = Atomic(false)
        let others = Task {
            for task in greedy { _ = try await task.value }
            areDone.store(true, ordering: .relaxed)
        }
        try await run(after: 0) { areDone.load(ordering: .relaxed) }
        try await others.value
    }
}
