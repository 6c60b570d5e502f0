import Coordinator
import Core
import Operators
import Protocol
import Testing

/// Single conversations with the scheduler.
@Suite struct SchedulerTests {
    private static let job = JobID(high: 1, low: 1)

    private func scheduler(shards: [Int] = [1], stages: Int = 1, workers: Int = 1, slots: Int = 1) -> (
        Scheduler, [Scheduler.Action]
    ) {
        var scheduler = Scheduler()
        var actions: [Scheduler.Action] = []
        for worker in 1...max(1, workers) where workers > 0 {
            actions += scheduler.handle(.workerJoined(worker, host: "host\(worker)", slots: slots), at: .zero)
        }
        let stage = shards.enumerated().map { ShardCost(label: "s\($0)", cost: $1) }
        actions += scheduler.handle(.jobAdded(Self.job, stages: Array(repeating: stage, count: stages)), at: .zero)
        return (scheduler, actions)
    }

    private func leases(_ actions: [Scheduler.Action]) -> [(worker: Int, attempt: Attempt)] {
        actions.compactMap { if case .lease(let worker, let attempt, _) = $0 { (worker, attempt) } else { nil } }
    }

    @Test func aJobRunsToItsEnd() throws {
        var (scheduler, actions) = scheduler()
        let lease = try #require(leases(actions).first)
        #expect(
            scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: .seconds(1)) == [
                .commit(lease.worker, lease.attempt)
            ])
        #expect(scheduler.handle(.shardCommitted(lease.attempt), at: .seconds(1)) == [.jobFinished(Self.job)])
        #expect(scheduler.handle(.shardCommitted(lease.attempt), at: .seconds(1)) == [])
    }

    @Test func aJobWithoutShardsIsFinishedAtOnce() {
        var scheduler = Scheduler()
        #expect(scheduler.handle(.jobAdded(Self.job, stages: [[], []]), at: .zero) == [.jobFinished(Self.job)])
    }

    /// A job that another coordinator began: what is committed is not leased, and stages open as if it had been done here.
    @Test(arguments: [Set<Int>(), [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]])
    func committedShardsAreNotDoneAgain(committed: Set<Int>) throws {
        var scheduler = Scheduler()
        _ = scheduler.handle(.workerJoined(1, host: "h", slots: 9), at: .zero)
        let stage = [ShardCost(label: "a", cost: 1), ShardCost(label: "b", cost: 1)]
        var actions = scheduler.handle(.jobAdded(Self.job, stages: [stage, stage], committed: committed), at: .zero)
        var done = committed, waiting = leases(actions)
        #expect(Set(waiting.map(\.attempt.shard)) == (committed.count < 2 ? Set([0, 1]) : [2, 3]).subtracting(committed))
        while let lease = waiting.popLast() {
            #expect(done.insert(lease.attempt.shard).inserted)
            _ = scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: .zero)
            actions = scheduler.handle(.shardCommitted(lease.attempt), at: .zero)
            waiting += leases(actions)
        }
        #expect(done == [0, 1, 2, 3] && actions.contains(.jobFinished(Self.job)))
    }

    @Test func theLargestShardsGoFirstAndLoadIsSpread() {
        let (_, actions) = scheduler(shards: [1, 9, 5, 7], workers: 2, slots: 1)
        #expect(leases(actions).map(\.attempt.shard) == [1, 3])
        #expect(Set(leases(actions).map(\.worker)) == [1, 2])
    }

    /// What a worker's memory is too small for waits for another, and holds nothing else up.
    @Test func shardsGoWhereTheyFit() throws {
        var scheduler = Scheduler()
        _ = scheduler.handle(.workerJoined(1, host: "small", slots: 2, memory: 29), at: .zero)
        let shards = [
            ShardCost(label: "large", cost: 9, memory: MemoryNeed(shared: 10, perThread: 10)),
            ShardCost(label: "small", cost: 1, memory: MemoryNeed(shared: 9, perThread: 10)),
        ]
        var open = leases(scheduler.handle(.jobAdded(Self.job, stages: [shards]), at: .zero))
        #expect(open.map(\.attempt.shard) == [1])
        #expect(scheduler.readyShards(of: Self.job).map(\.label) == ["large"])
        #expect(leases(scheduler.handle(.tick, at: .seconds(1))).isEmpty)
        // With one thread it needs less.
        open = leases(scheduler.handle(.workerJoined(2, host: "single", slots: 1, memory: 20), at: .seconds(2)))
        #expect(open.map(\.attempt.shard) == [0] && open.map(\.worker) == [2])
        #expect(scheduler.readyShards(of: Self.job).isEmpty)
        // Neither does it go to the small one when it fails.
        _ = scheduler.handle(.workerLeft(2), at: .seconds(3))
        #expect(leases(scheduler.handle(.tick, at: .seconds(60))).isEmpty)
        #expect(scheduler.readyShards(of: Self.job).map(\.label) == ["large"])
    }

    @Test func aStageBeginsWhenTheOneBeforeIsCommitted() throws {
        var (scheduler, actions) = scheduler(shards: [1, 1], stages: 2, slots: 9)
        var open = leases(actions)
        #expect(open.map(\.attempt.shard).sorted() == [0, 1])
        for lease in open { _ = scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: .zero) }
        #expect(scheduler.handle(.shardCommitted(open[0].attempt), at: .zero) == [])
        open = leases(scheduler.handle(.shardCommitted(open[1].attempt), at: .zero))
        #expect(open.map(\.attempt.shard).sorted() == [2, 3])
    }

    @Test func aLeaseThatIsNotRenewedGoesToAnother() throws {
        var (scheduler, actions) = scheduler(workers: 2)
        let first = try #require(leases(actions).first)
        #expect(scheduler.handle(.tick, at: .seconds(31)) == [])
        #expect(
            scheduler.handle(.tick, at: .seconds(32)) == [
                .giveUp(
                    first.worker, first.attempt,
                    TesseraError(
                        .temporary, "the lease ran out: nobody renewed the lease of s0 in time",
                        advice: "look at the network between coordinator and workers, then submit the job again"))
            ])
        let second = try #require(leases(scheduler.handle(.tick, at: .seconds(33))).first)
        #expect(second.attempt.epoch > first.attempt.epoch)
        // The first worker was only slow. Its result is stale, and harmless.
        #expect(
            scheduler.handle(.shardFinished(first.worker, first.attempt), at: .seconds(33)) == [
                .stale(first.worker, first.attempt)
            ])
        #expect(
            scheduler.handle(.shardFinished(second.worker, second.attempt), at: .seconds(33)) == [
                .commit(second.worker, second.attempt)
            ])
    }

    /// Results that always come too late, as over a link slower than the lease allows, must not keep a job going for ever.
    @Test func aShardWhoseLeaseRunsOutAgainAndAgainFailsItsJob() throws {
        var (scheduler, actions) = scheduler()
        var last: [Scheduler.Action] = []
        for second in stride(from: 0, to: 600, by: 1) where !leases(actions).isEmpty || second > 0 {
            actions = scheduler.handle(.tick, at: .seconds(second))
            if !actions.isEmpty { last = actions }
        }
        guard case .jobFailed(Self.job, let error)? = last.last else {
            Issue.record("\(last)")
            return
        }
        #expect(error.problem.contains("nobody renewed the lease of s0 in time"))
    }

    @Test func heartbeatsKeepALease() throws {
        var (scheduler, actions) = scheduler()
        let lease = try #require(leases(actions).first)
        for second in stride(from: 5, through: 300, by: 5) {
            _ = scheduler.handle(
                .heartbeat(lease.worker, [LeaseProgress(attempt: lease.attempt, bytesDone: second)]), at: .seconds(second))
            #expect(scheduler.handle(.tick, at: .seconds(second)) == [])
        }
        #expect(scheduler.holdsLease(lease.worker, lease.attempt))
    }

    @Test func aLostWorkersShardsGoBackAtOnce() throws {
        var (scheduler, actions) = scheduler(workers: 2)
        let first = try #require(leases(actions).first)
        let second = try #require(leases(scheduler.handle(.workerLeft(first.worker), at: .seconds(1))).first)
        #expect(second.worker != first.worker && second.attempt.shard == first.attempt.shard)
    }

    @Test func aShardThatKillsWorkerAfterWorkerFailsItsJob() throws {
        var (scheduler, actions) = scheduler(workers: 4)
        for _ in 0..<2 {
            let lease = try #require(leases(actions).first)
            actions = scheduler.handle(.workerLeft(lease.worker), at: .zero)
        }
        let lease = try #require(leases(actions).first)
        guard case .jobFailed(Self.job, let error)? = scheduler.handle(.workerLeft(lease.worker), at: .zero).first else {
            Issue.record("the job goes on")
            return
        }
        #expect(error.code == .temporary && error.problem.contains("3 workers were lost while they worked on s0"))
    }

    @Test func badDataFailsTheJobAtOnce() throws {
        var (scheduler, actions) = scheduler(shards: [1, 1], slots: 2)
        let open = leases(actions)
        let error = TesseraError(.badData, "bad")
        let failed = scheduler.handle(.shardFailed(open[0].worker, open[0].attempt, error), at: .zero)
        #expect(failed == [.revoke(open[1].worker, open[1].attempt, reason: "the job failed"), .jobFailed(Self.job, error)])
        #expect(
            scheduler.handle(.shardFinished(open[1].worker, open[1].attempt), at: .zero) == [
                .stale(open[1].worker, open[1].attempt)
            ])
    }

    /// What all hosts say of an input is no fault of theirs: their strikes go, and so do their rests.
    @Test func aFaultOfTheInputIsNobodysFault() throws {
        var (scheduler, actions) = scheduler(workers: 3)
        var ended = false, now = Duration.zero, isFirst = true
        let mounts = [1: "/mnt/a", 2: "/mnt/b", 3: "/data"]
        while !ended {
            for lease in leases(actions) {
                let file = try #require(mounts[lease.worker]) + "/base/model.safetensors"
                // Of two reads of a file that is cut short, the first may fail otherwise than the next.
                let error = TesseraError(isFirst ? .io : .badData, isFirst ? "cut short" : "changed", file: file)
                isFirst = false
                ended = scheduler.handle(.shardFailed(lease.worker, lease.attempt, error), at: now).contains {
                    if case .jobFailed(Self.job, _) = $0 { true } else { false }
                }
            }
            now += .seconds(1)
            try #require(now < .seconds(1000))
            if !ended { actions = scheduler.handle(.tick, at: now) }
        }
        #expect((1...3).map { scheduler.strikes(of: $0).count } == [0, 0, 0])
    }

    /// Workers that fail a shard each in its own way have their strikes, and a lonely one whose disk fails.
    @Test(arguments: [(1, ["/a/x/1"]), (2, ["/a/x/1", "/a/x/2"]), (2, [nil, nil])] as [(Int, [String?])])
    func otherFailuresAreTheWorkers(workers: Int, files: [String?]) throws {
        var (scheduler, actions) = scheduler(workers: workers)
        var ended = false, now = Duration.zero
        while !ended {
            for lease in leases(actions) {
                let error = TesseraError(.io, "disk", file: files[lease.worker - 1])
                ended = scheduler.handle(.shardFailed(lease.worker, lease.attempt, error), at: now).contains {
                    if case .jobFailed = $0 { true } else { false }
                }
            }
            now += .seconds(1)
            try #require(now < .seconds(1000))
            if !ended { actions = scheduler.handle(.tick, at: now) }
        }
        #expect((1...workers).reduce(0) { $0 + scheduler.strikes(of: $1).count } == 5)
        // And for the next job as well.
        let next = JobID(high: 2, low: 2)
        _ = scheduler.handle(.jobAdded(next, stages: [[ShardCost(label: "x", cost: 1)]]), at: now)
        #expect((1...workers).reduce(0) { $0 + scheduler.strikes(of: $1).count } == 5)
    }

    @Test func aTransientFailureIsTriedOnOtherHostsAfterAPause() throws {
        var (scheduler, actions) = scheduler(workers: 3)
        let error = TesseraError(.io, "disk")
        var hosts: Set<Int> = []
        var now = Duration.zero
        for round in 0..<3 {
            let lease = try #require(leases(actions).first, "round \(round)")
            #expect(hosts.insert(lease.worker).inserted)
            actions = scheduler.handle(.shardFailed(lease.worker, lease.attempt, error), at: now)
            if round < 2 {
                #expect(leases(actions).isEmpty, "not without a pause")
                now += .seconds(5)
                actions = scheduler.handle(.tick, at: now)
            }
        }
        #expect(actions == [.jobFailed(Self.job, error)])
    }

    @Test func aStragglerGetsASecondWorkerAndTheFirstResultWins() throws {
        var (scheduler, actions) = scheduler(shards: [10, 10, 10, 10], workers: 2, slots: 2)
        let open = leases(actions)
        for lease in open.dropLast() {
            _ = scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: .seconds(1))
            _ = scheduler.handle(.shardCommitted(lease.attempt), at: .seconds(1))
        }
        let slow = try #require(open.last)
        #expect(leases(scheduler.handle(.tick, at: .seconds(9))).isEmpty)
        let backup = try #require(leases(scheduler.handle(.tick, at: .seconds(11))).first)
        #expect(backup.worker != slow.worker && backup.attempt.shard == slow.attempt.shard)
        let won = scheduler.handle(.shardFinished(backup.worker, backup.attempt), at: .seconds(12))
        #expect(
            won == [
                .revoke(slow.worker, slow.attempt, reason: "another worker was faster"), .commit(backup.worker, backup.attempt),
            ])
        #expect(
            scheduler.handle(.shardFinished(slow.worker, slow.attempt), at: .seconds(12)) == [.stale(slow.worker, slow.attempt)])
    }

    @Test func aFailedCommitIsDoneAgain() throws {
        var (scheduler, actions) = scheduler()
        let lease = try #require(leases(actions).first)
        _ = scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: .zero)
        #expect(scheduler.handle(.commitFailed(lease.attempt, TesseraError(.temporary, "lost"), by: nil), at: .zero) == [])
        #expect(leases(scheduler.handle(.tick, at: .seconds(2))).first?.attempt.epoch == 2)
    }

    /// The same job, shard and epoch, leased before the coordinator was started anew.
    @Test func aResultOfAnotherIncarnationIsStale() throws {
        var scheduler = Scheduler(incarnation: 7)
        _ = scheduler.handle(.workerJoined(1, host: "h", slots: 1), at: .zero)
        let actions = scheduler.handle(.jobAdded(Self.job, stages: [[ShardCost(label: "s", cost: 1)]]), at: .zero)
        let lease = try #require(leases(actions).first)
        #expect(lease.attempt.incarnation == 7)
        let old = Attempt(job: Self.job, shard: lease.attempt.shard, epoch: lease.attempt.epoch, incarnation: 6)
        #expect(!scheduler.holdsLease(1, old))
        #expect(scheduler.handle(.shardFinished(1, old), at: .zero) == [.stale(1, old)])
        #expect(scheduler.handle(.shardFailed(1, old, TesseraError(.badData, "bad")), at: .zero) == [.stale(1, old)])
        #expect(scheduler.handle(.shardFinished(1, lease.attempt), at: .zero) == [.commit(1, lease.attempt)])
        #expect(scheduler.handle(.shardCommitted(old), at: .zero) == [])
        #expect(scheduler.handle(.shardCommitted(lease.attempt), at: .zero) == [.jobFinished(Self.job)])
    }

    @Test func aDrainingWorkerGetsNothingNew() {
        var (scheduler, actions) = scheduler(shards: [1, 1], workers: 1)
        #expect(leases(actions).count == 1)
        #expect(scheduler.handle(.workerDraining(1), at: .zero) == [])
        if let lease = leases(actions).first {
            #expect(scheduler.handle(.shardFinished(1, lease.attempt), at: .zero) == [.commit(1, lease.attempt)])
            #expect(scheduler.handle(.shardCommitted(lease.attempt), at: .zero) == [])
        }
    }

    @Test func cancellingTakesTheLeasesBack() throws {
        var (scheduler, actions) = scheduler(shards: [1, 1], workers: 2)
        #expect(scheduler.handle(.jobCancelled(Self.job), at: .zero).count == leases(actions).count)
        #expect(scheduler.handle(.jobCancelled(Self.job), at: .zero) == [])
        #expect(leases(scheduler.handle(.workerJoined(9, host: "h", slots: 4), at: .zero)).isEmpty)
    }

    /// Whatever waits, an event looks at a few shards: those that it leases, and one of each need of memory that fits no free
    /// slot.
    @Test func anEventCostsTheSameHoweverManyShardsWait() {
        let count = 100_000
        var scheduler = Scheduler()
        let shards = (0..<count).map { ShardCost(label: "s", cost: 1 + $0 % 97, memory: MemoryNeed(shared: $0 % 5)) }
        var open = leases(scheduler.handle(.jobAdded(Self.job, stages: [shards]), at: .zero))
        for worker in 1...4 {
            open += leases(scheduler.handle(.workerJoined(worker, host: "h\(worker)", slots: 3, memory: 100), at: .zero))
        }
        // One worker always has a free slot: it is too small for any shard.
        _ = scheduler.handle(.workerJoined(5, host: "small", slots: 1, memory: -1), at: .zero)
        #expect(open.count == 12)
        let before = scheduler.visitedShards
        var now = Duration.zero, events = 0
        for _ in 0..<2000 {
            now += .milliseconds(100)
            guard let lease = open.first else { break }
            open.removeFirst()
            _ = scheduler.handle(.heartbeat(lease.worker, [LeaseProgress(attempt: lease.attempt, bytesDone: 1)]), at: now)
            open += leases(scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: now))
            open += leases(scheduler.handle(.shardCommitted(lease.attempt), at: now))
            open += leases(scheduler.handle(.tick, at: now))
            events += 4
        }
        #expect(events == 8000 && open.count == 12)
        #expect(scheduler.visitedShards - before < 40 * events, "\(scheduler.visitedShards - before)")
    }

    /// Nothing of a job that has ended stays.
    @Test func endedJobsLeaveNothing() {
        var scheduler = Scheduler()
        _ = scheduler.handle(.workerJoined(1, host: "h", slots: 2), at: .zero)
        let empty = scheduler.entryCount
        for number in 0..<5000 {
            let id = JobID(high: 2, low: UInt64(number)), now = Duration.seconds(number)
            let open = leases(
                scheduler.handle(
                    .jobAdded(id, stages: [[ShardCost(label: "a", cost: 1), ShardCost(label: "b", cost: 1)]]), at: now))
            if number % 3 == 0 {
                _ = scheduler.handle(.jobCancelled(id), at: now)
                continue
            }
            for lease in open {
                _ = scheduler.handle(.shardFinished(lease.worker, lease.attempt), at: now)
                _ = scheduler.handle(.shardCommitted(lease.attempt), at: now)
            }
        }
        // The ends of leases are forgotten once they have passed.
        #expect(scheduler.entryCount <= empty + 1100, "\(scheduler.entryCount)")
        _ = scheduler.handle(.tick, at: .seconds(6000))
        #expect(scheduler.entryCount == empty)
        #expect(scheduler.leaseCount(of: 1) == 0)
    }
}
