import Core
import Protocol
import Testing

@testable import Coordinator

@Suite struct JobRegistryTests {
    private static func id(_ number: Int) -> JobID { JobID(high: 3, low: UInt64(number)) }

    private func add(_ number: Int, shards: Int, to registry: inout JobRegistry) throws {
        registry.add(
            Self.id(number), key: JobKey("", owner: "o"), output: "/out\(number)", job: nil, startedAt: .zero, submittedAt: 0)
        registry.apply(.planned(Self.id(number), try JobProgressTests.summary(Array(repeating: 1, count: shards))))
    }

    private func end(_ number: Int, in registry: inout JobRegistry) {
        registry[Self.id(number)]?.phase = .ended(.done, nil, at: .zero)
        registry.apply(.ended(Self.id(number), .done, nil))
    }

    private func numbers(_ registry: JobRegistry, after number: Int? = nil) -> [Int] {
        registry.jobs(after: number).map { Int($0.id.low) }
    }

    @Test func theLastEndedJobsStayAndActiveOnesAlways() throws {
        var registry = JobRegistry(limits: .init(endedJobs: 3, endedRows: 1000))
        for number in 0..<8 { try add(number, shards: 1, to: &registry) }
        for number in [7, 2, 3, 4, 5] { end(number, in: &registry) }
        #expect(numbers(registry) == [0, 1, 3, 4, 5, 6] && registry.count == 6)
        #expect(registry.active == Set([0, 1, 6].map(Self.id)))
        #expect(registry[Self.id(2)] == nil && registry[Self.id(7)] == nil)
    }

    @Test func pagesGoOnWhereJobsWereLetGo() throws {
        var registry = JobRegistry(limits: .init(endedJobs: 1, endedRows: 1000))
        for number in 0..<6 { try add(number, shards: 1, to: &registry) }
        let position = registry[Self.id(2)]?.number
        for number in [1, 2, 3] { end(number, in: &registry) }
        #expect(numbers(registry, after: position) == [3, 4, 5])
        #expect(
            numbers(registry, after: 5) == [] && numbers(registry, after: .max) == [] && numbers(registry, after: -9).count == 4)
    }

    /// Rows of shards are let go before summaries, the oldest first.
    @Test func rowsOfEndedJobsAreBounded() throws {
        var registry = JobRegistry(limits: .init(endedJobs: 10, endedRows: 25))
        for number in 0..<4 { try add(number, shards: 10, to: &registry) }
        for number in 0..<3 { end(number, in: &registry) }
        #expect((0..<4).map { registry[Self.id($0)]?.progress.rowCount } == [0, 10, 10, 10])
        #expect(registry[Self.id(0)]?.status(at: .zero)?.shards.total == 10, "the summary stays")
        try add(4, shards: 30, to: &registry)
        end(4, in: &registry)
        #expect((0..<5).map { registry[Self.id($0)]?.progress.rowCount } == [0, 0, 0, 10, 0])
        for number in 5..<40 {
            try add(number, shards: 3, to: &registry)
            end(number, in: &registry)
        }
        #expect(registry.entryCount <= 11 + 25 + 10)
    }
}
