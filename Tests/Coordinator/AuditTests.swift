import Checkpoints
import Core
import Journal
import Planning
import Protocol
import TestSupport
import Testing
import Work

@testable import Coordinator

/// A share of the shards is done again on another host. A host that computes something else than two others gets nothing more.
@Suite struct AuditTests {
    private let stages: PlannedStages
    private let store = MemoryOutputStore()
    private static let id = JobID(high: 7, low: 7)

    init() throws { stages = try TestJobs().stages() }

    /// Workers on hosts, one slot each; some compute wrongly.
    private final class Bench {
        var cluster = ClusterState()
        var hosts: [Int: String] = [:]
        var wrong: Set<String> = []
        private(set) var leases: [(worker: Int, lease: Lease)] = []
        private(set) var events: [JobEvent] = [], steps: [ClusterState.Step] = []
        private(set) var commits: [CommitRecord] = []

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
                    let isWrong = wrong.contains(hosts[worker] ?? "")
                    take(cluster.finished(try isWrong ? lease.doneWrongly() : lease.done(), by: worker, at: .zero))
                }
                let todo = steps
                steps = []
                for step in todo {
                    guard case .commit(let record) = step else { continue }
                    commits.append(record)
                    take(cluster.committed(record, error: nil, at: .zero))
                }
                if case .publish? = todo.last { return }
            }
        }

        var putAside: [String] { events.compactMap { if case .putAside(_, let host, _, _) = $0 { host } else { nil } } }
        var isPublishing: Bool { cluster.jobs[AuditTests.id]?.isPublishing == true }
        /// What the manifest would say of every shard's first block.
        var digests: [Digest] {
            get throws { try cluster.jobs[AuditTests.id]?.job?.blocksByPart().joined().flatMap(\.digests) ?? [] }
        }
    }

    private func bench(_ hosts: [String], wrong: Set<String> = [], share: Double = 1) throws -> Bench {
        let bench = Bench()
        bench.wrong = wrong
        for host in hosts { bench.join(host) }
        let audit = share > 0 ? Audit(Self.id, share: share) : nil
        let job = Job(
            stages, output: try store.begin("/\(Self.id)", job: "", overwrite: false), options: JobOptions(), audit: audit)
        bench.take(
            bench.cluster.add(
                Self.id, job, key: JobKey("k", owner: "o"), output: "/o", stages: stages, submittedAt: 0, at: .zero))
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

    /// It could only repeat itself.
    @Test func aHostAloneIsNotAudited() throws {
        let bench = try bench(["a", "a"])
        #expect(bench.isPublishing && bench.commits.count == 3)
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
        let kept = earlier.commits.map(\.journaled).sorted { $0.attempt.shard < $1.attempt.shard }
        let bench = Bench()
        bench.wrong = ["a"]
        for host in ["b", "c", "a"] { bench.join(host) }
        var job = Job(
            stages, output: try store.begin("/\(Self.id)", job: "", overwrite: false), options: JobOptions(),
            audit: Audit(Self.id, share: 1))
        try job.keep(kept)
        let resumed = ResumedJob(
            job: job, plans: [stages], kept: kept.map { KeptShard(shard: $0.attempt.shard, worker: $0.worker) })
        bench.take(
            bench.cluster.resume(
                Self.id, resumed, key: JobKey("k", owner: "o"), output: "/o", submittedAt: 0, startedAt: .zero, at: .zero))
        try bench.work()
        #expect(bench.isPublishing && Set(bench.putAside) == ["a"])
        #expect(try bench.digests == rightDigests())
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
        return ShardDone(
            attempt: attempt,
            result: ShardResult(
                digests: right.result.digests.map { $0.map { _ in wrong } }, statistics: right.result.statistics),
            delivery: .direct)
    }
}
