import Checkpoints
import Core
import Journal
import Operators
import Planning
import Protocol
import TaskVectors
import TestSupport
import Testing
import Work

@testable import Coordinator

/// A share of the shards is done again on another host. A host that computes something else than two others gets nothing more.
@Suite struct AuditTests {
    private let jobs: TestJobs
    private let stages: PlannedStages
    private let store = MemoryOutputStore()
    private static let id = JobID(high: 7, low: 7)

    init() throws {
        jobs = try TestJobs()
        stages = try jobs.stages()
    }

    /// Workers on hosts, one slot each; some compute wrongly.
    private final class Bench {
        let id: JobID
        var cluster = ClusterState()
        var hosts: [Int: String] = [:]
        var wrong: Set<String> = []
        /// Whether those compute all right that is measured before the output is planned.
        var measuresWell = false
        /// A host that goes away when it is first to decide, and comes back once another has begun that.
        var takesBreak: String?
        private(set) var hasTakenBreak = false
        private(set) var leases: [(worker: Int, lease: Lease)] = []
        private(set) var events: [JobEvent] = [], steps: [ClusterState.Step] = []
        private(set) var commits: [CommitRecord] = []

        init(_ id: JobID) { self.id = id }

        func join(_ host: String) {
            let worker = (hosts.keys.max() ?? 0) + 1
            hosts[worker] = host
            let description = WorkerDescription(
                name: "on-\(host)", address: host, build: "b", threads: 1, memory: 1 << 30, tensorMemory: 1 << 30)
            take(cluster.attach(description, at: .zero) { _ in }.effects)
        }

        func take(_ effects: [ClusterState.Effect]) {
            for effect in effects {
                switch effect {
                case .send(.lease(let lease), _):
                    guard let worker = hosts.keys.first(where: { cluster.scheduler.holdsLease($0, lease.attempt) }) else { break }
                    leases.append((worker, lease))
                case .send: break
                case .happened(let event): events.append(event)
                case .start(let step): steps.append(step)
                }
            }
        }

        /// Works until nothing is left.
        func work() throws {
            while !leases.isEmpty || !steps.isEmpty {
                while let (worker, lease) = leases.popLast() {
                    if let host = takesBreak, hosts[worker] == host, lease.attempt.shard >= 6 {
                        (takesBreak, hasTakenBreak) = (nil, true)
                        take(cluster.detach(worker, reason: "", isLoss: false, isOrderly: true, at: .zero))
                        join(host)
                        continue
                    }
                    let isWrong = wrong.contains(hosts[worker] ?? "") && !(measuresWell && lease.work.outputs.isEmpty)
                    take(cluster.finished(try isWrong ? lease.doneWrongly() : lease.done(), by: worker, at: .zero))
                }
                let todo = steps
                steps = []
                for step in todo {
                    switch step {
                    case .commit(let record):
                        commits.append(record)
                        take(cluster.committed(record, error: nil, at: .zero))
                    case .plan(let id):
                        guard let job = cluster.jobs[id]?.job else { continue }
                        let statistics = try job.allStatistics()
                        let plan = try Planner.plan(job.request, after: statistics)
                        take(
                            cluster.extend(
                                id, with: PlannedStages(plan, request: job.request, after: statistics), at: .zero))
                    default: continue
                    }
                }
                if case .publish? = todo.last { return }
            }
        }

        var putAside: [String] { events.compactMap { if case .putAside(_, let host, _, _) = $0 { host } else { nil } } }
        var plan: Plan? { cluster.jobs[id]?.job?.plan }
        var isPublishing: Bool { cluster.jobs[id]?.isPublishing == true }
        /// What the manifest would say of every shard's first block.
        var digests: [Digest] {
            get throws { try cluster.jobs[id]?.job?.blocksByPart().joined().flatMap(\.digests) ?? [] }
        }
    }

    private func bench(
        _ hosts: [String], wrong: Set<String> = [], share: Double = 1, id: JobID = id, stages: PlannedStages? = nil,
        measuresWell: Bool = false, takesBreak: String? = nil
    ) throws -> Bench {
        let bench = Bench(id), stages = stages ?? self.stages
        (bench.wrong, bench.measuresWell, bench.takesBreak) = (wrong, measuresWell, takesBreak)
        for host in hosts { bench.join(host) }
        let audit = share > 0 ? Audit(id, share: share) : nil
        let job = Job(
            stages, output: try store.begin("/\(id)", job: "", overwrite: false), options: JobOptions(), audit: audit)
        bench.take(
            bench.cluster.add(
                id, job, key: JobKey("k", owner: "o"), output: "/o", stages: stages, submittedAt: 0, at: .zero))
        try bench.work()
        return bench
    }

    private func rightDigests() throws -> [Digest] { try bench(["a"], share: 0).digests }

    @Test func soundHostsAgree() throws {
        let bench = try bench(["a", "b"])
        #expect(bench.isPublishing && bench.putAside.isEmpty)
        #expect(bench.commits.count == 6, "each of three shards twice")
        // Each the second time on the other host, and under the number of the first.
        for shard in 0..<3 {
            let both = bench.commits.filter { $0.shard == shard }
            #expect(Set(both.map(\.worker.name)) == ["on-a", "on-b"], "shard \(shard)")
            #expect(both.map(\.journaled.attempt.shard) == [shard, shard] && both[1].attempt.shard >= 3)
        }
        #expect(try bench.digests == rightDigests())
        #expect(bench.cluster.jobs[Self.id]?.progress.shards == JobStatus.Shards(total: 6, pending: 0, leased: 0, committed: 6))
        #expect(bench.cluster.jobs[Self.id]?.progress.row(4)?.label.hasPrefix("audit of layers.") == true)
    }

    @Test func nothingIsAuditedUnlessAskedFor() throws {
        let bench = try bench(["a", "b"], share: 0)
        #expect(bench.isPublishing && bench.commits.count == 3)
    }

    /// It could only repeat itself, and the log says so.
    @Test func aHostAloneIsNotAudited() throws {
        let bench = try bench(["a", "a"])
        #expect(bench.isPublishing && bench.commits.count == 3)
        #expect(bench.events.contains(.unaudited(Self.id, shards: 3)))
    }

    /// Two hosts differ, and the third is away when it is to decide: neither of the two decides about itself.
    @Test(arguments: ["a", "b"], [["a", "b", "c"], ["b", "a", "c"]])
    func nobodyDecidesAboutItself(wrong: String, hosts: [String]) throws {
        let bench = try bench(hosts, wrong: [wrong], takesBreak: "c")
        #expect(bench.hasTakenBreak && bench.isPublishing && Set(bench.putAside) == [wrong])
        #expect(try bench.digests == rightDigests())
    }

    /// The workers of a coordinator that was started again come one by one, each to what it has done itself.
    @Test(arguments: [["a", "b"], ["b", "a"]])
    func anAuditAfterARestartTakesTheOtherHost(order: [String]) throws {
        let earlier = try bench(["a", "b"], share: 0)
        #expect(Set(earlier.commits.map(\.worker.name)) == ["on-a", "on-b"])
        let bench = Bench(Self.id)
        try resume(earlier.commits, in: bench)
        for host in order { bench.join(host) }
        try bench.work()
        #expect(bench.isPublishing && !bench.events.contains { if case .unaudited = $0 { true } else { false } })
        for commit in earlier.commits {
            let again = bench.commits.last { $0.shard == commit.shard }
            #expect(again != nil && again?.worker.name != commit.worker.name, "shard \(commit.shard)")
        }
    }

    /// Whoever of three hosts is wrong, in whatever order they come: its work is done again, and the output is right.
    @Test(arguments: ["a", "b", "c"], [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a", "a"]])
    func aHostThatComputesWronglyIsFound(wrong: String, hosts: [String]) throws {
        let bench = try bench(hosts, wrong: [wrong])
        #expect(bench.isPublishing && Set(bench.putAside) == [wrong])
        #expect(try bench.digests == rightDigests())
        // A result of that host is kept for no shard.
        let last = Dictionary(bench.commits.map { ($0.shard, $0.worker.name) }) { $1 }
        #expect(last.count == 3 && !last.values.contains("on-\(wrong)"))
        // Nor does it get more, also if it comes again.
        bench.join(wrong)
        let other = JobID(high: 8, low: 8)
        let job = Job(stages, output: try store.begin("/\(other)", job: "", overwrite: false), options: JobOptions())
        bench.take(
            bench.cluster.add(
                other, job, key: JobKey("l", owner: "o"), output: "/p", stages: stages, submittedAt: 0, at: .zero))
        #expect(bench.leases.count > 0 && bench.leases.allSatisfy { bench.hosts[$0.worker] != wrong })
        let status = StatusPages(bench.cluster, at: .zero, for: .local).answer(StatusRequest())?.workers ?? []
        #expect(status.filter { $0.putAside != nil }.allSatisfy { $0.address == wrong })
        #expect(status.contains { $0.putAside?.contains("came out otherwise than on") == true })
    }

    /// Two stages, and four, each with three shards, of which all but the last plan's are measurements.
    private static let analyses = [(TestJobs.store, 2), (TestJobs.modelWide, 4)]

    @Test(arguments: analyses)
    func measurementsAreAuditedToo(recipe: String, plans: Int) throws {
        let bench = try bench(["a", "b"], stages: try jobs.stages(recipe))
        #expect(bench.isPublishing && bench.putAside.isEmpty && bench.commits.count == 6 * plans)
        for number in 0..<3 * plans {
            let both = bench.commits.filter { $0.shard == number }
            #expect(Set(both.map(\.worker.name)) == ["on-a", "on-b"], "shard \(number)")
        }
    }

    /// A host that measures wrongly does not decide what is planned.
    @Test(arguments: analyses, ["a", "b", "c"])
    func aHostThatMeasuresWronglyIsFound(analysis: (recipe: String, plans: Int), wrong: String) throws {
        let stages = try jobs.stages(analysis.recipe)
        let right = try bench(["a"], share: 0, stages: stages)
        let bench = try bench(["a", "b", "c"], wrong: [wrong], stages: stages)
        #expect(bench.isPublishing && Set(bench.putAside) == [wrong])
        #expect(try bench.digests == right.digests)
        #expect(bench.plan?.digest == right.plan?.digest && bench.plan != nil)
        let last = Dictionary(bench.commits.map { ($0.shard, $0.worker.name) }) { $1 }
        #expect(last.count == 3 * analysis.plans && !last.values.contains("on-\(wrong)"))
    }

    /// A host is found in the last stage, and it had measured, too, what nobody looked at: that is looked at now.
    @Test(arguments: [true, false])
    func whatAHostMeasuredBeforeItWasFoundIsDoneAgain(measuresWell: Bool) throws {
        let id = try #require(
            (1...10_000).lazy.map { JobID(high: 7, low: $0) }.first { id in
                (0..<3).allSatisfy { !Audit.chooses($0, of: id, share: 0.5) }
                    && (3..<6).allSatisfy { Audit.chooses($0, of: id, share: 0.5) }
            })
        let stages = try jobs.stages(TestJobs.store)
        let bench = try bench(
            ["a", "b", "c"], wrong: ["a"], share: 0.5, id: id, stages: stages, measuresWell: measuresWell)
        #expect(Set(bench.putAside) == ["a"])
        let again = bench.commits.filter { $0.shard < 3 }.suffix(from: 3)
        #expect(!again.isEmpty && again.allSatisfy { $0.worker.name != "on-a" })
        #expect(bench.isPublishing == measuresWell)
        guard !measuresWell else {
            let right = try self.bench(["b"], share: 0, stages: stages)
            #expect(try bench.digests == right.digests && bench.plan?.digest == right.plan?.digest)
            return
        }
        guard case .ending(.failed, let error?)? = bench.cluster.jobs[id]?.phase else {
            Issue.record("\(String(describing: bench.cluster.jobs[id]?.phase))")
            return
        }
        #expect(error.code == .temporary && error.problem.contains("on-a on a, which is put aside"), "\(error)")
    }

    /// People still read the recipe of a job that is audited.
    @Test func anAuditIsNoPlan() throws {
        let bench = try bench(["a", "b"])
        #expect(bench.cluster.jobs[Self.id]?.plan?.description?.recipe == stages.plan.recipeText)
        #expect(bench.events.count { if case .planned = $0 { true } else { false } } == 1)
    }

    /// Of two that differ nobody knows which is right.
    @Test func twoHostsThatDifferFailTheJob() throws {
        let bench = try bench(["a", "b"], wrong: ["b"])
        #expect(!bench.isPublishing && bench.putAside.isEmpty)
        guard case .ending(.failed, let error?)? = bench.cluster.jobs[Self.id]?.phase else {
            Issue.record("\(String(describing: bench.cluster.jobs[Self.id]?.phase))")
            return
        }
        #expect(error.code == .temporary && error.problem.contains("on-a on a") && error.problem.contains("on-b on b"))
    }

    /// Of what an earlier coordinator committed, the workers' names are known.
    @Test func anAuditGoesOnAfterARestart() throws {
        let earlier = try bench(["a"], wrong: ["a"], share: 0)
        let bench = Bench(Self.id)
        bench.wrong = ["a"]
        for host in ["b", "c", "a"] { bench.join(host) }
        try resume(earlier.commits, in: bench)
        try bench.work()
        #expect(bench.isPublishing && Set(bench.putAside) == ["a"])
        #expect(try bench.digests == rightDigests())
    }

    /// As a coordinator that was started again takes the job up.
    private func resume(_ commits: [CommitRecord], in bench: Bench) throws {
        let kept = commits.map(\.journaled).sorted { $0.attempt.shard < $1.attempt.shard }
        var job = Job(
            stages, output: try store.begin("/\(Self.id)", job: "", overwrite: false), options: JobOptions(),
            audit: Audit(Self.id, share: 1))
        try job.keep(kept)
        let resumed = ResumedJob(
            job: job, plans: [stages], kept: kept.map { KeptShard(shard: $0.attempt.shard, worker: $0.worker) })
        bench.take(
            bench.cluster.resume(
                Self.id, resumed, key: JobKey("k", owner: "o"), output: "/o", submittedAt: 0, startedAt: .zero, at: .zero))
    }

    @Test func theShareIsDrawnOnce() {
        for share in [0, 0.05, 0.5, 1] {
            let chosen = (0..<10_000).filter { Audit.chooses($0, of: Self.id, share: share) }
            #expect(abs(Double(chosen.count) / 10_000 - share) < 0.02)
            #expect(chosen == (0..<10_000).filter { Audit.chooses($0, of: Self.id, share: share) })
        }
        let other = (0..<10_000).filter { Audit.chooses($0, of: JobID(high: 7, low: 8), share: 0.5) }
        #expect(other != (0..<10_000).filter { Audit.chooses($0, of: Self.id, share: 0.5) })
    }
}

extension Lease {
    /// As `done`, by a host whose memory flips bits.
    fileprivate func doneWrongly() throws -> ShardDone {
        let right = try done(), wrong = try Digest.sha256(of: [1])
        let statistics = right.result.statistics.map { found -> TensorStatistics? in
            switch found {
            case .merge(let merge)?:
                .merge(MergeStatistics(merge.numbers.mapValues { $0.map { $0 + 1 } }, counts: merge.counts))
            case .encoding(.kept(let counts))?: .encoding(.kept(counts.map { $0 - 1 }))
            case let other: other
            }
        }
        return ShardDone(
            attempt: attempt,
            result: ShardResult(digests: right.result.digests.map { $0.map { _ in wrong } }, statistics: statistics),
            delivery: .direct)
    }
}
