import Protocol
import Testing

@testable import Coordinator

@Suite struct WorkerRegistryTests {
    private static let attempt = Attempt(job: JobID(high: 1, low: 1), shard: 0, epoch: 1, incarnation: 0)

    @Test func whatAWorkerHasDoneIsCounted() {
        var workers = WorkerRegistry()
        let id = workers.add(.test("w"), at: .zero) { _ in }
        let worker = workers.reference(to: id)
        #expect(worker == WorkerReference(id: 1, name: "w", address: "h"))
        workers.apply(.leased(Self.attempt, worker))
        workers.apply(.committed(Self.attempt, worker, byteCount: 5, .relayed))
        workers.apply(.committed(Self.attempt, worker, byteCount: 7, .direct))
        #expect(workers[id]?.shardsDone == 2 && workers[id]?.bytesDone == 12 && workers[id]?.bytesDirect == 7)
    }

    /// The result of a worker that has left counts for the job, and for nobody here. Numbers are not used twice.
    @Test func aWorkerThatHasLeftStaysGone() {
        var workers = WorkerRegistry()
        let id = workers.add(.test("w"), at: .zero) { _ in }
        let worker = workers.reference(to: id)
        #expect(workers.remove(id, at: .seconds(7)) != nil && workers.remove(id, at: .seconds(8)) == nil)
        #expect(workers.emptySince == .seconds(7))
        workers.apply(.committed(Self.attempt, worker, byteCount: 5, .relayed))
        #expect(workers.members.isEmpty && workers.reference(to: id).name == "gone")
        #expect(workers.add(.test("w"), at: .zero) { _ in } == 2)
    }

    @Test func namesAreBounded() {
        let long = String(repeating: "é", count: 1_000_000)
        let worker = WorkerDescription(name: long, address: "h", build: long, threads: 1, memory: 0, tensorMemory: 0)
        #expect(worker.name.utf8.count < 200 && worker.build.utf8.count < 200)
    }
}
