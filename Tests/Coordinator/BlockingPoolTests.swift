import Dispatch
import Testing

@testable import Coordinator

@Suite struct BlockingPoolTests {
    private struct Failure: Error {}

    @Test func resultsAndErrorsComeBack() async throws {
        let pool = BlockingPool(threads: 1)
        #expect(try await pool.run { 7 } == 7)
        await #expect(throws: Failure.self) { try await pool.run { throw Failure() } }
    }

    /// What removes an unfinished output has to run, whoever lost interest meanwhile.
    @Test func workIsDoneAlthoughItsTaskIsCancelled() async throws {
        let pool = BlockingPool(threads: 1), goOn = DispatchSemaphore(value: 0)
        let first = Task { try await pool.run { goOn.wait() } }
        let second = Task { try await pool.run { 7 } }
        second.cancel()
        goOn.signal()
        try await first.value
        #expect(try await second.value == 7)
    }
}
