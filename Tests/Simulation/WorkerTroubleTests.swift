import Coordinator
import Core
import Operators
import Protocol
import Testing

/// A worker's own trouble costs that worker the shard, never the job while another can do it.
@Suite struct WorkerTroubleTests {
    private static let job = JobID(high: 1, low: 1)
    private var scheduler = Scheduler()
    private var waiting: [(worker: Int, attempt: Attempt)] = []
    private var ends: [Scheduler.Action] = []

    private mutating func handle(_ event: Scheduler.Event, at now: Duration = .zero) {
        for action in scheduler.handle(event, at: now) {
            switch action {
            case .lease(let worker, let attempt, _): waiting.append((worker, attempt))
            case .giveUp(let worker, let attempt, _), .revoke(let worker, let attempt, _):
                waiting.removeAll { $0.worker == worker && $0.attempt == attempt }
            case .jobFailed, .jobFinished: ends.append(action)
            default: break
            }
        }
    }

    /// A job whose shards have 1000 bytes and a second of work each.
    private mutating func begin(shards: Int = 1) {
        let costs = (0..<shards).map { ShardCost(label: "s\($0)", cost: 1_000_000, byteCount: 1000) }
        handle(.jobAdded(Self.job, stages: [costs]))
    }

    private mutating func join(_ worker: Int, host: String, key: String? = nil, slots: Int = 1) {
        handle(.workerJoined(worker, host: host, key: key, slots: slots))
    }

    private mutating func fail(_ code: TesseraError.Code = .io, at now: Duration) {
        let lease = waiting.removeFirst()
        handle(.shardFailed(lease.worker, lease.attempt, TesseraError(code, "trouble")), at: now)
    }

    private mutating func finish(_ lease: (worker: Int, attempt: Attempt), at now: Duration) {
        waiting.removeAll { $0.attempt == lease.attempt }
        handle(.shardFinished(lease.worker, lease.attempt), at: now)
        handle(.shardCommitted(lease.attempt), at: now)
    }

    private var failure: TesseraError? { if case .jobFailed(_, let error)? = ends.last { error } else { nil } }
    private var isFinished: Bool { ends == [.jobFinished(Self.job)] }

    // MARK: Failures

    /// NAT and pods: workers are told apart by their processes, not by where they come from. The broken one is free again at
    /// once, and still gets each shard only once.
    @Test(arguments: [TesseraError.Code.io, .inputMissing, .notAllowed, .usage, .cannotCreate, .internal, .badData])
    mutating func aBrokenWorkerBehindTheSameAddressCostsNoJob(code: TesseraError.Code) throws {
        join(1, host: "nat", key: "broken")
        join(2, host: "nat", key: "sound")
        begin(shards: 20)
        var now = Duration.zero, failed: [Int] = []
        while ends.isEmpty, now < .seconds(600) {
            now += .seconds(1)
            for lease in waiting {
                if lease.worker == 2 {
                    finish(lease, at: now)
                } else {
                    failed.append(lease.attempt.shard)
                    waiting.removeAll { $0.attempt == lease.attempt }
                    handle(.shardFailed(1, lease.attempt, TesseraError(code, "trouble")), at: now)
                }
            }
            handle(.tick, at: now)
        }
        #expect(isFinished, "\(ends)")
        #expect(!failed.isEmpty && Set(failed).count == failed.count, "no shard twice: \(failed)")
    }

    /// The only worker that could do it is busy: the shard waits, and goes to nobody who failed it.
    @Test mutating func aFailedShardWaitsForABusyWorker() throws {
        join(1, host: "a")
        join(2, host: "b")
        begin(shards: 2)
        let sound = try #require(waiting.first { $0.worker == 2 })
        waiting.removeAll { $0.worker == 2 }
        fail(at: .seconds(1))
        for second in 2...20 { handle(.tick, at: .seconds(second)) }
        #expect(waiting.isEmpty, "\(waiting)")
        finish(sound, at: .seconds(21))
        #expect(waiting.map(\.worker) == [2])
        // With the other gone, the first may try again.
        handle(.workerLeft(2, isLoss: false), at: .seconds(22))
        #expect(waiting.last?.worker == 1)
    }

    @Test mutating func aJobFailsWhenEveryWorkerHasFailedAShard() throws {
        for worker in 1...7 { join(worker, host: "host \(worker)") }
        begin()
        var tried: Set<Int> = [], now = Duration.zero
        while ends.isEmpty, now < .seconds(600) {
            now += .seconds(1)
            handle(.tick, at: now)
            if let lease = waiting.first {
                #expect(tried.insert(lease.worker).inserted)
                fail(at: now)
            }
        }
        #expect(failure?.code == .io && tried.count == 7)
    }

    /// On one host there is no third one to ask, so it is the number of attempts that counts.
    @Test mutating func aSingleWorkerHasFiveTries() {
        join(1, host: "a")
        begin()
        var now = Duration.zero, tries = 0
        while ends.isEmpty, now < .seconds(600) {
            now += .seconds(1)
            handle(.tick, at: now)
            if !waiting.isEmpty {
                tries += 1
                fail(at: now)
            }
        }
        #expect(tries == 5 && failure?.code == .io && now < .seconds(60))
    }

    /// What nobody else can do better fails the job at once; what two workers say of the data is believed.
    @Test(arguments: [(TesseraError.Code.cannotCreate, 1, 1), (.badData, 1, 1), (.cannotCreate, 3, 3), (.badData, 3, 2)])
    mutating func permanentFailures(code: TesseraError.Code, workers: Int, tries: Int) {
        for worker in 1...workers { join(worker, host: "host \(worker)") }
        begin()
        for round in 0..<tries {
            #expect(ends.isEmpty && waiting.count == 1)
            fail(code, at: .seconds(round))
            handle(.tick, at: .seconds(round + 1))
        }
        #expect(failure?.code == code)
    }

    /// A worker that fails whatever it gets is left alone for longer and longer, and is as good as any once it does something.
    @Test mutating func aWorkerThatFailsInARowRests() throws {
        join(1, host: "a")
        join(2, host: "b")
        begin(shards: 100)
        var now = Duration.zero, failures: [Duration] = []
        while now < .seconds(40) {
            now += .milliseconds(500)
            for lease in waiting where lease.worker == 1 {
                failures.append(now)
                fail(at: now)
            }
            handle(.tick, at: now)
            waiting.sort { $0.worker < $1.worker }
        }
        #expect(failures.count < 10, "\(failures)")
        #expect(scheduler.strikes(of: 1).count == failures.count && scheduler.strikes(of: 1).restsUntil != nil)
        handle(.tick, at: .seconds(200))
        let lease = try #require(waiting.first { $0.worker == 1 })
        finish(lease, at: .seconds(201))
        #expect(scheduler.strikes(of: 1).count == 0)
    }

    /// A full disk fails whoever writes to it, and the job is paused for that again and again: no shard is given up for it.
    @Test mutating func aPauseForgivesFailures() {
        join(1, host: "a")
        join(2, host: "b")
        begin()
        var now = Duration.zero
        for _ in 0..<10 {
            var failures = 0
            while failures < 4, ends.isEmpty {
                now += .seconds(1)
                handle(.tick, at: now)
                guard !waiting.isEmpty else { continue }
                failures += 1
                fail(at: now)
            }
            handle(.jobPaused(Self.job), at: now)
            now += .seconds(100)
            handle(.tick, at: now)
            #expect(waiting.isEmpty && ends.isEmpty)
            handle(.jobResumed(Self.job), at: now)
        }
        #expect(ends.isEmpty)
    }

    // MARK: Lost workers

    /// One worker that goes away and comes back is one worker.
    @Test mutating func oneProcessThatIsLostAgainAndAgainIsOneWorker() {
        begin()
        for round in 1...9 {
            join(round, host: "a", key: "the same")
            #expect(waiting.last?.worker == round)
            handle(.workerLeft(round), at: .seconds(round))
        }
        #expect(ends.isEmpty)
    }

    /// Five processes in a row: whoever restarts them on one host, it is the shard that ends them.
    @Test mutating func aShardThatEndsEveryProcessFailsItsJob() {
        begin()
        for round in 1...5 {
            #expect(ends.isEmpty)
            join(round, host: "a")
            handle(.workerLeft(round), at: .seconds(round))
        }
        #expect(failure?.problem.contains("5 workers were lost while they worked on s0") == true)
    }

    /// Where processes end with other work in hand as well, or with none, it is not the shard that ends them.
    @Test mutating func workersThatAreLostEverywhereAreNotBlamedOnTheShard() {
        begin()
        for round in 1...9 {
            join(2 * round, host: "host \(2 * round)")
            #expect(waiting.last?.worker == 2 * round)
            join(2 * round + 1, host: "host \(2 * round + 1)")
            handle(.workerLeft(2 * round + 1), at: .seconds(2 * round))
            handle(.workerLeft(2 * round), at: .seconds(2 * round + 1))
        }
        #expect(ends.isEmpty)
    }

    /// Silence does not show that a process has ended.
    @Test mutating func silentWorkersAreNotBlamedOnTheShard() {
        begin()
        for round in 1...9 {
            join(round, host: "host \(round)")
            handle(.workerLeft(round, isLoss: false), at: .seconds(round))
        }
        #expect(ends.isEmpty)
    }

    // MARK: Signs of life

    /// The worker is alive, and its shard stands still: another gets it, though nobody else's shards are finished.
    @Test mutating func aLeaseWithoutProgressIsTakenBack() {
        join(1, host: "a")
        begin()
        let first = waiting[0]
        for second in stride(from: 5, through: 200, by: 5) where !waiting.isEmpty {
            let progress = LeaseProgress(attempt: first.attempt, bytesDone: min(second, 50))
            handle(.heartbeat(1, [progress]), at: .seconds(second))
            handle(.tick, at: .seconds(second))
            // Progress ends at 50 s.
            #expect(waiting.isEmpty == (second > 170), "\(second)")
        }
        #expect(waiting.isEmpty && ends.isEmpty)
        join(2, host: "b")
        handle(.tick, at: .seconds(201))
        #expect(waiting.map(\.worker) == [2])
    }

    /// Blocks that the coordinator's own disk holds up say nothing about the worker.
    @Test mutating func aWorkerThatWaitsForTheCoordinatorKeepsItsLease() {
        join(1, host: "a")
        begin()
        for second in stride(from: 5, through: 900, by: 5) {
            let lease = LeaseProgress(attempt: waiting[0].attempt, bytesDone: 7)
            handle(.heartbeat(1, [lease], waiting: [lease.attempt]), at: .seconds(second))
            handle(.tick, at: .seconds(second))
        }
        #expect(waiting.count == 1)
    }

    /// A frame that takes minutes holds heartbeats up, and its bytes renew what the worker has. What the last heartbeats did not
    /// name, it has not.
    @Test mutating func bytesRenewLeases() {
        join(1, host: "a", slots: 2)
        begin(shards: 2)
        let (kept, forgotten) = (waiting[0].attempt, waiting[1].attempt)
        for second in [5, 10] {
            handle(.heartbeat(1, [LeaseProgress(attempt: kept, bytesDone: second)]), at: .seconds(second))
        }
        for second in stride(from: 15, through: 90, by: 5) {
            handle(.workerHeard(1), at: .seconds(second))
            handle(.tick, at: .seconds(second))
        }
        #expect(scheduler.holdsLease(1, kept) && !scheduler.holdsLease(1, forgotten))
    }

    /// The coordinator stood still: no lease ends for that, and none is taken for slow.
    @Test mutating func nobodyIsBlamedForAPauseOfTheCoordinator() {
        join(1, host: "a")
        join(2, host: "b", slots: 2)
        begin(shards: 3)
        let leases = waiting
        for round in 1...3 {
            let now = Duration.seconds(600 * round)
            handle(.stoodStill(.seconds(590)), at: now)
            handle(.tick, at: now)
            handle(.tick, at: now + .seconds(1))
        }
        #expect(waiting.count == 3 && leases.allSatisfy { scheduler.holdsLease($0.worker, $0.attempt) })
    }

    /// After two silent intervals a worker may be gone: it gets nothing new, and what it has is begun elsewhere.
    @Test mutating func theShardsOfASilentWorkerAreBegunElsewhere() throws {
        join(1, host: "a")
        begin()
        let first = waiting[0]
        handle(.workerSilent(1), at: .seconds(11))
        join(2, host: "b")
        handle(.tick, at: .seconds(12))
        #expect(waiting.count == 2 && waiting[1].worker == 2 && waiting[1].attempt.shard == first.attempt.shard)
        // It was only slow. Its result counts, if it is the first.
        handle(.workerHeard(1), at: .seconds(13))
        finish(first, at: .seconds(14))
        #expect(isFinished && waiting.isEmpty)
    }

    // MARK: Stragglers

    /// Estimated by what each has done: the one that will end last gets the free slot, before any shard is finished.
    @Test mutating func backupsGoByEstimatedTime() {
        for worker in 1...4 { join(worker, host: "host \(worker)") }
        begin(shards: 4)
        let leases = waiting
        // Of 1000 bytes in 11 s: the fast one ends in 11 s, the slow ones in 100 and 200 s.
        for (lease, bytes) in zip(leases, [500, 500, 100, 52]) {
            handle(.heartbeat(lease.worker, [LeaseProgress(attempt: lease.attempt, bytesDone: bytes)]), at: .seconds(11))
        }
        join(5, host: "host 5")
        handle(.tick, at: .seconds(11))
        #expect(waiting.count == 5 && waiting[4].worker == 5 && waiting[4].attempt.shard == leases[3].attempt.shard)
        // Those that do well are left alone, however many slots are free.
        join(6, host: "host 6", slots: 9)
        handle(.tick, at: .seconds(11))
        #expect(waiting.dropFirst(5).map(\.attempt.shard) == [leases[2].attempt.shard])
    }

    /// Nothing tells how long the only shard of a job should take.
    @Test mutating func aLoneShardIsBackedUpInTheEnd() {
        join(1, host: "a")
        join(2, host: "b")
        begin()
        for second in stride(from: 5, through: 60, by: 5) {
            handle(.heartbeat(1, [LeaseProgress(attempt: waiting[0].attempt, bytesDone: 0)]), at: .seconds(second))
            handle(.tick, at: .seconds(second))
        }
        #expect(waiting.count == 1)
        handle(.tick, at: .seconds(61))
        #expect(waiting.count == 2 && waiting[1].worker == 2)
    }
}
