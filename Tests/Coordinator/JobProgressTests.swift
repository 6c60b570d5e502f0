import Core
import Protocol
import TestSupport
import Testing

@testable import Coordinator

@Suite struct JobProgressTests {
    private static let id = JobID(high: 1, low: 1)
    private static let worker = WorkerReference(id: 1, name: "w", address: "h")

    static func summary(_ sizes: [Int]) throws -> PlanSummary {
        PlanSummary(
            method: "linear", digest: try .sha256(of: []), bytesInput: 1, bytesOutput: 2,
            shards: sizes.enumerated().map { ShardSummary(label: "s\($0)", byteCount: $1) })
    }

    private static func attempt(_ shard: Int, _ epoch: UInt64 = 1) -> Attempt {
        Attempt(job: id, shard: shard, epoch: epoch, incarnation: 0)
    }

    @Test func aShardIsCountedFromLeaseToCommit() throws {
        var progress = JobProgress()
        progress.apply(.planned(Self.id, try Self.summary([10, 20])))
        progress.apply(.leased(Self.attempt(1), Self.worker))
        progress.apply(.progressed(Self.attempt(1), bytesDone: 7))
        #expect(progress.shards == JobStatus.Shards(total: 2, pending: 1, leased: 1, committed: 0))
        #expect(progress.bytesDone == 7 && progress.bytesTotal == 30)
        progress.apply(.committed(Self.attempt(1), Self.worker, byteCount: 20, .direct))
        #expect(progress.shards == JobStatus.Shards(total: 2, pending: 1, leased: 0, committed: 1))
        #expect(progress.bytesDone == 20 && progress.attempts == 1)
        #expect(progress.row(1)?.workers == ["w"] && progress.row(1)?.state == .committed)
    }

    /// Of two attempts at a shard the furthest counts; a worker may say anything.
    @Test func progressIsThatOfTheFurthestAttempt() throws {
        var progress = JobProgress()
        progress.apply(.planned(Self.id, try Self.summary([10])))
        progress.apply(.leased(Self.attempt(0, 1), Self.worker))
        progress.apply(.leased(Self.attempt(0, 2), WorkerReference(id: 2, name: "v", address: "h")))
        progress.apply(.progressed(Self.attempt(0, 1), bytesDone: 4))
        progress.apply(.progressed(Self.attempt(0, 2), bytesDone: .max))
        #expect(progress.bytesDone == 10)
        progress.apply(.failed(Self.attempt(0, 2), Self.worker, TesseraError(.io, "x")))
        #expect(progress.bytesDone == 4 && progress.row(0)?.workers == ["w"] && progress.row(0)?.attempts == 2)
        progress.apply(.progressed(Self.attempt(0, 1), bytesDone: .min))
        #expect(progress.bytesDone == 0)
        progress.apply(.ended(Self.id, .cancelled, nil))
        #expect(progress.shards.pending == 1 && progress.row(0)?.state == .pending)
    }

    /// Who failed a shard stays in its row, a few of the last failures of each.
    @Test func aRowNamesWhoFailed() throws {
        var progress = JobProgress()
        progress.apply(.planned(Self.id, try Self.summary([10])))
        for epoch in 1...20 {
            let worker = WorkerReference(id: epoch, name: "w\(epoch)", address: "h\(epoch % 2)")
            progress.apply(.leased(Self.attempt(0, UInt64(epoch)), worker))
            #expect(progress.row(0)?.workers == ["w\(epoch)"])
            progress.apply(.failed(Self.attempt(0, UInt64(epoch)), worker, TesseraError(.io, "x\(epoch)")))
        }
        let row = try #require(progress.row(0))
        #expect(row.workers == (13...20).map { "w\($0)" } && row.failures?.map(\.error.problem) == (13...20).map { "x\($0)" })
        #expect(
            progress.whoFailed?.hasSuffix(
                "failed on w13 (h1), w14 (h0), w15 (h1), w16 (h0), w17 (h1), w18 (h0), w19 (h1), w20 (h0)") == true)
        progress.dropRows()
        #expect(progress.row(0) == nil)
    }

    /// A fault that all hosts find is not blamed on those that found it.
    @Test func whatAllBlameIsNoWorkersFault() throws {
        func failed(_ errors: [TesseraError], sameHost: Bool = false) throws -> String? {
            var progress = JobProgress()
            progress.apply(.planned(Self.id, try Self.summary([10])))
            for (number, error) in errors.enumerated() {
                let worker = WorkerReference(id: number, name: "w\(number)", address: sameHost ? "h" : "h\(number)")
                let attempt = Self.attempt(0, UInt64(number + 1))
                progress.apply(.leased(attempt, worker))
                progress.apply(.failed(attempt, worker, error))
            }
            return progress.whoFailed
        }
        let bad = TesseraError(.badData, "was changed", file: "/m/base/model.safetensors")
        let io = TesseraError(.io, "cannot be read", file: "/mnt/base/model.safetensors")
        #expect(try failed([bad, bad]) == "all 2 workers that tried it say so")
        #expect(try failed([io, io]) == "all 2 workers that tried it say so")
        #expect(try failed([io, bad]) == "all 2 workers that tried it say so")
        #expect(try failed([bad]) == nil)
        #expect(try failed([io, io], sameHost: true)?.contains("failed on w0 (h), w1 (h)") == true)
        #expect(try failed([io, TesseraError(.io, "x", file: "/mnt/tune/model.safetensors")])?.contains("failed on w0") == true)
        #expect(try failed([TesseraError(.io, "x"), TesseraError(.io, "x")])?.contains("failed on w0") == true)
    }

    /// The sums that are kept as events happen are those of the rows.
    @Test(arguments: 0..<20)
    func sumsAreThoseOfTheRows(seed: Int) throws {
        var random = SplitMix(seed: UInt64(seed))
        var progress = JobProgress(), open: [Attempt] = [], committed: Set<Int> = [], epochs = [UInt64](repeating: 0, count: 9)
        progress.apply(.planned(Self.id, try Self.summary((0..<9).map { $0 * 3 })))
        for _ in 0..<300 {
            let shard = Int.random(in: 0..<9, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0 where !committed.contains(shard):
                epochs[shard] += 1
                open.append(Self.attempt(shard, epochs[shard]))
                progress.apply(.leased(open[open.count - 1], Self.worker))
            case 1:
                guard let attempt = open.randomElement(using: &random) else { continue }
                progress.apply(.progressed(attempt, bytesDone: Int.random(in: -5...40, using: &random)))
            case 2:
                guard let attempt = open.randomElement(using: &random) else { continue }
                open.removeAll { $0 == attempt }
                progress.apply(.revoked(attempt, Self.worker, reason: ""))
            default:
                guard Bool.random(using: &random), let attempt = open.randomElement(using: &random) else { continue }
                open.removeAll { $0.shard == attempt.shard }
                committed.insert(attempt.shard)
                progress.apply(.committed(attempt, Self.worker, byteCount: 0, .direct))
            }
            let rows = (0..<9).compactMap(progress.row)
            #expect(progress.bytesDone == rows.reduce(0) { $0 + $1.bytesDone })
            #expect(progress.attempts == rows.reduce(0) { $0 + $1.attempts })
            #expect(progress.shards.pending == rows.count { $0.state == .pending })
            #expect(progress.shards.leased == rows.count { $0.state == .leased })
            #expect(progress.shards.committed == rows.count { $0.state == .committed })
        }
    }
}
