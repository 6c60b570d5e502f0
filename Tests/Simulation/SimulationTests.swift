import Coordinator
import Core
import Operators
import Protocol
import TestSupport
import Testing

/// The scheduler in a world where workers come, go, freeze and come back, and messages are late, lost or doubled.
///
/// A run follows from its seed alone; a failure names it.
@Suite(.serialized) struct SimulationTests {
    @Test(arguments: 0..<300)
    func whateverHappensTheRulesHold(seed: Int) {
        var world = World(seed: UInt64(seed))
        world.run()
        #expect(world.violations == [], "seed \(seed)")
    }

    @Test func theSameSeedGivesTheSameHistory() {
        var first = World(seed: 4), second = World(seed: 4), other = World(seed: 5)
        first.run()
        second.run()
        other.run()
        #expect(first.history == second.history)
        #expect(first.history != other.history)
    }

    @Test func theWorldIsHardEnough() {
        let worlds = (0..<100).map { seed in
            var world = World(seed: UInt64(seed))
            world.run()
            return world
        }
        #expect(worlds.contains { $0.staleResults > 0 })
        #expect(worlds.contains { $0.finished > 0 })
        #expect(worlds.contains { $0.failed > 0 })
        #expect(worlds.contains { $0.backups > 0 })
        #expect(worlds.contains { $0.cancelled > 0 })
        #expect(worlds.contains { $0.lateAnswers > 0 }, "no job ended while one of its results was being committed")
    }
}

/// Jobs, workers and a network between them, driven by one random generator.
private struct World {
    private enum Delivery { case toScheduler(Scheduler.Event), start(Int, Attempt), stop(Int, Attempt) }

    private struct Worker {
        var isAlive = true
        var frozenUntil = Duration.zero
        var working: [Attempt: Duration] = [:]
    }

    private struct ShardKey: Hashable {
        let job: JobID
        let shard: Int
    }

    private var random: SplitMix
    private var scheduler = Scheduler()
    private var now = Duration.zero
    private var mail: [(at: Duration, delivery: Delivery)] = []
    private var workers: [Int: Worker] = [:]
    private var nextWorker = 1
    private var jobs: [JobID: [Int]] = [:]
    /// The stages of a job that the scheduler has not been told of.
    private var unknown: [JobID: [[ShardCost]]] = [:]
    private var ended: [JobID: Bool] = [:]
    private var committed: Set<ShardKey> = []
    /// Shards whose results are being committed: the answer takes its time.
    private var committing: [ShardKey: Attempt] = [:]
    private var epochs: [ShardKey: UInt64] = [:]
    private var leased: [Int: Set<Attempt>] = [:]
    /// Of each worker, and what each shard of a job needs.
    private var memory: [Int: Int] = [:]
    private var needs: [JobID: [Int]] = [:]

    private(set) var violations: [String] = []
    private(set) var history: [String] = []
    private(set) var staleResults = 0, finished = 0, failed = 0, backups = 0, cancelled = 0, lateAnswers = 0
    private static let slots = 2
    private static let calmAfter = Duration.seconds(600)
    private static let end = Duration.seconds(6_000)

    init(seed: UInt64) { random = SplitMix(seed: seed) }

    private mutating func chance(_ share: Double) -> Bool { Double.random(in: 0..<1, using: &random) < share }

    private mutating func violate(_ rule: String) { violations.append("\(now): \(rule)") }

    private var isCalm: Bool { now >= Self.calmAfter }

    // MARK: Time

    mutating func run() {
        for number in 0..<3 {
            let id = JobID(high: 1, low: UInt64(number))
            let stages = (0..<Int.random(in: 1...3, using: &random)).map { _ in
                (0..<Int.random(in: 0...8, using: &random)).map {
                    ShardCost(
                        label: "s\($0)", cost: Int.random(in: 1...100, using: &random),
                        memory: MemoryNeed(shared: Int.random(in: 0...9, using: &random)))
                }
            }
            jobs[id] = stages.map(\.count)
            needs[id] = stages.joined().map(\.memory.shared)
            // Some jobs know their later stages only when the first ones are done.
            let known = Bool.random(using: &random) ? stages.count : Int.random(in: 0..<stages.count, using: &random)
            unknown[id] = Array(stages[known...])
            tell(.jobAdded(id, stages: Array(stages[..<known]), hasMoreStages: known < stages.count))
        }
        while now < Self.end, ended.count < jobs.count {
            now += .milliseconds(500)
            if isCalm { comeToRest() } else { disturb() }
            deliver()
            work()
            tell(.tick)
        }
        for job in jobs.keys where ended[job] == nil { violate("the job \(job) has not ended") }
    }

    /// After the storm there are two healthy workers with memory enough, and everything has to come to an end.
    private mutating func comeToRest() {
        if workers.count(where: { $0.value.isAlive && memory[$0.key] ?? 0 >= 9 }) < 2 { join() }
    }

    private mutating func disturb() {
        if chance(0.0005), let id = jobs.keys.filter({ ended[$0] == nil }).min(by: { $0.low < $1.low }) { cancel(id) }
        if chance(0.03), workers.values.count(where: { $0.isAlive }) < 4 { join() }
        for id in workers.keys.sorted() where workers[id]?.isAlive == true {
            if chance(0.004) {
                workers[id]?.isAlive = false
                // The coordinator may take long to notice.
                post(.toScheduler(.workerLeft(id)), after: .seconds(Double.random(in: 0...25, using: &random)))
            } else if chance(0.004) {
                workers[id]?.frozenUntil = now + .seconds(Double.random(in: 1...90, using: &random))
            } else if chance(0.001) {
                post(.toScheduler(.workerDraining(id)), after: .zero)
            }
        }
    }

    /// A user ends the job, possibly while results of it are being committed.
    private mutating func cancel(_ id: JobID) {
        for action in scheduler.handle(.jobCancelled(id), at: now) {
            // Takes its own leases back and may give the slots to others, before anybody can know that the job has ended.
            if case .lease(_, let attempt, _) = action, attempt.job == id { violate("a lease of a cancelled job") }
            obey(action)
        }
        ended[id] = false
        cancelled += 1
    }

    private mutating func join() {
        workers[nextWorker] = Worker()
        let memory = isCalm ? 9 : Int.random(in: 4...12, using: &random)
        self.memory[nextWorker] = memory
        tell(.workerJoined(nextWorker, host: "host\(nextWorker % 3)", slots: Self.slots, memory: memory))
        nextWorker += 1
    }

    private mutating func post(_ delivery: Delivery, after pause: Duration? = nil) {
        let delay = pause ?? .seconds(isCalm ? 0.1 : Double.random(in: 0...3, using: &random))
        mail.append((now + delay, delivery))
    }

    private mutating func deliver() {
        let due = mail.filter { $0.at <= now }
        mail.removeAll { $0.at <= now }
        for (_, delivery) in due {
            switch delivery {
            case .toScheduler(let event):
                if case .workerLeft(let id, _) = event { leased[id] = nil }
                tell(event)
            case .start(let worker, let attempt):
                workers[worker]?.working[attempt] = now + .seconds(Double.random(in: 1...20, using: &random))
            case .stop(let worker, let attempt): workers[worker]?.working[attempt] = nil
            }
        }
    }

    /// Every worker that is awake sends a heartbeat now and then, and results when they are there.
    private mutating func work() {
        for id in workers.keys.sorted() {
            guard let worker = workers[id], worker.isAlive, worker.frozenUntil <= now else { continue }
            let beat = worker.working.keys.sorted {
                ($0.job.low, UInt64($0.shard), $0.epoch) < ($1.job.low, UInt64($1.shard), $1.epoch)
            }
            if isCalm || chance(0.2) { send(.heartbeat(id, beat.map { LeaseProgress(attempt: $0, bytesDone: 1) })) }
            for attempt in beat where worker.working[attempt] ?? now <= now {
                workers[id]?.working[attempt] = nil
                if !isCalm, chance(0.05) {
                    send(.shardFailed(id, attempt, TesseraError(chance(0.1) ? .badData : .io, "simulated")))
                } else {
                    send(.shardFinished(id, attempt))
                }
            }
        }
    }

    /// To the coordinator: may be lost with its connection, or come twice.
    private mutating func send(_ event: Scheduler.Event) {
        if !isCalm, chance(0.02) { return }
        post(.toScheduler(event))
        if !isCalm, chance(0.05) { post(.toScheduler(event)) }
    }

    // MARK: Rules

    private mutating func tell(_ event: Scheduler.Event) {
        if case .shardFinished(let worker, let attempt) = event, leased[worker]?.contains(attempt) != true { staleResults += 1 }
        // Whoever finishes or fails gives its lease back.
        switch event {
        case .shardFinished(let worker, let attempt), .shardFailed(let worker, let attempt, _): leased[worker]?.remove(attempt)
        default: break
        }
        // The answer to a commit: for a job that has ended meanwhile it means nothing any more.
        switch event {
        case .shardCommitted(let attempt), .commitFailed(let attempt, _, _):
            let key = ShardKey(job: attempt.job, shard: attempt.shard)
            let counts = committing[key] == attempt && ended[attempt.job] == nil
            if scheduler.isCommitting(attempt) != counts { violate("a commit counts as \(!counts)") }
            if ended[attempt.job] != nil { lateAnswers += 1 }
            if counts {
                committing[key] = nil
                if case .shardCommitted = event { committed.insert(key) }
            }
        default: break
        }
        for action in scheduler.handle(event, at: now) { obey(action) }
    }

    private mutating func obey(_ action: Scheduler.Action) {
        history.append("\(now) \(action)")
        switch action {
        case .lease(let worker, let attempt, _):
            let key = ShardKey(job: attempt.job, shard: attempt.shard)
            if ended[attempt.job] != nil { violate("a lease of a job that has ended") }
            if committed.contains(key) { violate("a lease of a committed shard") }
            if committing[key] != nil { violate("a lease of a shard whose result is being committed") }
            if needs[attempt.job]?[attempt.shard] ?? 0 > memory[worker] ?? 0 { violate("a lease beyond a worker's memory") }
            if attempt.epoch <= epochs[key] ?? 0 { violate("an epoch that does not rise") }
            if let before = stage(of: attempt),
                (0..<before).contains(where: { !committed.contains(ShardKey(job: attempt.job, shard: $0)) })
            {
                violate("a stage before its time")
            }
            if leased.contains(where: { $0.value.contains { $0.job == attempt.job && $0.shard == attempt.shard } }) {
                backups += 1
            }
            epochs[key] = attempt.epoch
            leased[worker, default: []].insert(attempt)
            if leased[worker, default: []].count > Self.slots { violate("more leases than slots") }
            post(.start(worker, attempt))
        case .revoke(let worker, let attempt, _), .giveUp(let worker, let attempt, _):
            leased[worker]?.remove(attempt)
            post(.stop(worker, attempt))
        case .commit(let worker, let attempt):
            let key = ShardKey(job: attempt.job, shard: attempt.shard)
            if committed.contains(key) || committing[key] != nil { violate("a second commit") }
            if ended[attempt.job] != nil { violate("a commit after the end") }
            leased[worker]?.remove(attempt)
            committing[key] = attempt
            // Now and then longer than a lease lasts, and sometimes answered twice.
            let pause = Duration.seconds(isCalm ? 0.1 : chance(0.1) ? Double.random(in: 30...90, using: &random) : 1)
            let fails = !isCalm && chance(0.02)
            let answer =
                fails
                ? Scheduler.Event.commitFailed(attempt, TesseraError(.temporary, "simulated"), by: nil) : .shardCommitted(attempt)
            post(.toScheduler(answer), after: pause)
            if chance(0.05) { post(.toScheduler(answer), after: pause) }
        case .stale: break
        case .jobContinues(let job):
            if ended[job] != nil { violate("an ended job goes on") }
            guard let next = unknown[job]?.first else { return violate("a whole job asks for more") }
            unknown[job]?.removeFirst()
            post(.toScheduler(.stagesAdded(job, stages: [next], hasMoreStages: unknown[job]?.isEmpty == false)))
        case .jobFinished(let job):
            if ended.updateValue(true, forKey: job) != nil { violate("a second end") }
            let count = jobs[job]?.reduce(0, +) ?? 0
            if (0..<count).contains(where: { !committed.contains(ShardKey(job: job, shard: $0)) }) {
                violate("finished without all shards")
            }
            finished += 1
        case .jobFailed(let job, _):
            if ended.updateValue(false, forKey: job) != nil { violate("a second end") }
            failed += 1
        }
    }

    /// The number of shards in the stages before the attempt's.
    private func stage(of attempt: Attempt) -> Int? {
        var before = 0
        for count in jobs[attempt.job] ?? [] {
            if attempt.shard < before + count { return before }
            before += count
        }
        return nil
    }
}
