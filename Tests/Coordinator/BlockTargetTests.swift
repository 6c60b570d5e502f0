import Core
import Planning
import Protocol
import TestSupport
import Testing
import Work

@testable import Coordinator

/// Blocks that workers send, alone or two together.
@Suite struct BlockTargetTests {
    private static let attempt = Attempt(job: .none, shard: 0, epoch: 1, incarnation: 1)
    private let jobs: TestJobs
    private var job: Job
    private let store = MemoryOutputStore()
    private let tensor: OutputTensor

    init() throws {
        // 1.2 MB: two blocks.
        jobs = try TestJobs(elements: 300_000)
        let stages = try jobs.stages(), output = try store.begin("/out", job: "", overwrite: false)
        try output.layOut(stages.plan.parts, adopting: [])
        job = Job(stages, output: output, options: JobOptions())
        tensor = try #require(job.shard(0)?.outputs.first)
        try #require(tensor.blockCount == 2)
    }

    private mutating func target(_ range: Range<Int>) throws(TesseraError) -> BlockTarget? {
        try job.target(of: Self.attempt, tensor: 0, offset: range.lowerBound, byteCount: range.count)
    }

    /// Blocks that come together are written and hashed as those that come alone.
    @Test(arguments: [true, false]) mutating func neighboursMayComeTogether(areTogether: Bool) throws {
        let bytes = (0..<tensor.byteCount).map { UInt8(truncatingIfNeeded: $0 % 251) }
        let blocks = [0..<tensor.blockSize, tensor.blockSize..<tensor.byteCount]
        var digests: [BlockPosition: Digest] = [:]
        for range in areTogether ? [0..<tensor.byteCount] : blocks.reversed() {
            let target = try #require(try target(range))
            digests.merge(try bytes[range].withUnsafeBytes { try target.write($0) }) { first, _ in first }
        }
        for block in blocks {
            #expect(
                try digests[BlockPosition(tensor: 0, offset: block.lowerBound)] == Digest.sha256(of: Array(bytes[block])))
        }
        #expect(digests.count == 2)
        let file = try job.output.open(job.plan.parts[tensor.part].name)
        #expect(try file.bytes(tensor.offset..<tensor.offset + tensor.byteCount) == bytes)
    }

    @Test mutating func noBlockComesTwice() throws {
        #expect(try target(0..<tensor.blockSize) != nil)
        for range in [0..<tensor.blockSize, 0..<tensor.byteCount] {
            let error = #expect(throws: TesseraError.self) { try target(range) }
            #expect(error?.code == .protocolMismatch && error?.problem.contains("came twice") == true)
        }
        #expect(try target(tensor.blockSize..<tensor.byteCount) != nil, "a pair that is refused leaves nothing behind")
    }

    @Test mutating func otherRangesAreRefused() throws {
        let size = tensor.blockSize, end = tensor.byteCount
        for range in [
            0..<0, 0..<1, 0..<size - 1, 0..<size + 1, 0..<end - 1, 0..<end + 1, 1..<size, size..<end - 1, size..<size + size,
        ] {
            let error = #expect(throws: TesseraError.self, "\(range)") { try target(range) }
            #expect(error?.problem.contains("do not fit") == true)
        }
    }
}
