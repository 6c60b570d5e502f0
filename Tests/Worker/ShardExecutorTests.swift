import Checkpoints
import Core
import Foundation
import Operators
import Protocol
import Synchronization
import TestSupport
import Testing
import Work
import Worker

/// A shard in, blocks and digests out: the same for any number of threads, and an error for anything that does not fit.
@Suite(.serialized) struct ShardExecutorTests {
    private let directory: TemporaryDirectory
    private let roots: Roots
    private static let count = 3 * (TreeDigest.blockSize / 4) + 77

    init() throws {
        directory = try TemporaryDirectory()
        roots = try Roots([directory.path])
    }

    final class Store: ShardOutput {
        let blocks = Mutex<[Int: [Int: [UInt8]]]>([:])
        let pieceSize: Int
        let computesDigests: Bool

        init(pieceSize: Int = TreeDigest.blockSize, computesDigests: Bool = false) {
            self.pieceSize = pieceSize
            self.computesDigests = computesDigests
        }

        func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
            blocks.withLock { $0[tensor, default: [:]][offset] = Array(bytes) }
        }

        func store(
            byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
        ) throws {
            var bytes = [UInt8](repeating: 0, count: byteCount), filled = 0
            try bytes.withUnsafeMutableBytes { bytes in
                guard let start = bytes.baseAddress else { return }
                try fill(start) { filled = $0 }
            }
            #expect(filled == byteCount)
            blocks.withLock { $0[tensor, default: [:]][offset] = bytes }
        }

        func finish() {}

        func bytes(ofTensor index: Int) -> [UInt8] {
            blocks.withLock { blocks in blocks[index, default: [:]].sorted { $0.key < $1.key }.flatMap(\.value) }
        }
    }

    private func input(_ name: String, count: Int) throws -> InputFile {
        let values = (0..<count).map { Float($0 % 251) }
        let path = "\(directory.path)/\(name)"
        try Data(TestTensor.encode([("t", TestTensor(values))])).write(to: URL(fileURLWithPath: path))
        let header = try SafetensorsHeader.read(path: path, in: LocalFiles())
        return InputFile(path: name, size: header.fileSize, headerDigest: header.digest)
    }

    private func work(
        _ file: InputFile, count: Int, change: (inout StoredReference) -> Void = { _ in }, method: String = "passthrough",
        base: Int? = nil, scale: Double? = 2, output: DType = .bf16
    ) -> ShardWork {
        var source = StoredReference(file: 0, offset: file.size - 4 * count, dtype: .f32, shape: [count])
        change(&source)
        let tensor = TensorWork(
            name: "t", shape: [count],
            operation: .merge(
                MergeOperation(
                    method: method, values: ParameterValues(perInput: [scale.map { ["scale": .number($0)] } ?? [:]]), base: base,
                    codec: .rounding(to: output))),
            sources: [.stored(source)],
            outputs: Rounding(dtype: output).outputs(shape: [count]).map { OutputTensor($0, name: "t", part: 0, offset: 0) })
        return ShardWork(label: "s", files: [file], tensors: [tensor])
    }

    private func run(
        _ work: ShardWork, threads: Int = 2, memory: Int = 1 << 30, output: Store = Store(),
        progress: ShardProgress = ShardProgress()
    )
        async throws -> [[Digest]]
    {
        let pool = ComputePool(threads: threads, memory: memory)
        let executor = ShardExecutor(pool: pool, inputs: LocalInputs(roots: roots, host: "w", log: .silent))
        let result = await Result { try await executor.run(work, output: output, progress: progress) }
        try await pool.shutdown()
        return try result.get().digests
    }

    @Test func digestsAndBytesAreTheSameForAnyNumberOfThreads() async throws {
        let file = try input("in", count: Self.count)
        var seen: Set<[Digest]> = []
        for threads in [1, 2, 5] {
            let output = Store(), progress = ShardProgress()
            let digests = try await run(work(file, count: Self.count), threads: threads, output: output, progress: progress)
            let bytes = output.bytes(ofTensor: 0)
            #expect(bytes.count == 2 * Self.count)
            #expect(progress.bytesDone == bytes.count)
            let blockSize = try #require(Rounding(dtype: .bf16).outputs(shape: [Self.count]).first).blockSize
            let expected = try stride(from: 0, to: bytes.count, by: blockSize).map {
                try Digest.sha256(of: Array(bytes[$0..<min(bytes.count, $0 + blockSize)]))
            }
            #expect(expected.count > 2)
            #expect(digests == [expected])
            seen.insert(expected)
        }
        #expect(seen.count == 1)
    }

    /// Whoever is sent blocks computes their digests.
    @Test(arguments: [(2, .bf16), (nil, .f32)] as [(Double?, DType)])
    func anOutputThatComputesDigestsGetsTheSameBytes(scale: Double?, output: DType) async throws {
        let work = work(try input("in", count: Self.count), count: Self.count, scale: scale, output: output)
        let hashed = Store(), sent = Store(computesDigests: true)
        #expect(try await run(work, output: hashed).first?.isEmpty == false)
        #expect(try await run(work, output: sent).isEmpty)
        #expect(sent.bytes(ofTensor: 0) == hashed.bytes(ofTensor: 0) && !sent.bytes(ofTensor: 0).isEmpty)
    }

    /// Shards that cannot be worked on at once wait for each other's memory.
    @Test func shardsShareTheMemory() async throws {
        let file = try input("in", count: Self.count), work = work(file, count: Self.count)
        let need = try #require(try work.tensors.first?.cost().memory.byteCount(threads: 4))
        let expected = try await run(work)
        for (memory, loans) in [(need, 1), (2 * need + 1, 2), (20 * need, 16)] {
            let pool = ComputePool(threads: 4, memory: memory)
            let executor = ShardExecutor(pool: pool, inputs: LocalInputs(roots: roots, host: "w", log: .silent))
            let digests = try await withThrowingTaskGroup(of: [[Digest]].self) { group in
                for _ in 0..<16 {
                    group.addTask { try await executor.run(work, output: Store(), progress: ShardProgress()).digests }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(digests == Array(repeating: expected, count: 16), "buffer for \(loans)")
            #expect(pool.memory.reserve(memory) != nil, "not everything was given back")
            try await pool.shutdown()
        }
        let error = await #expect(throws: TesseraError.self) { try await run(work, threads: 4, memory: need - 1) }
        #expect(error?.code == .usage && error?.tensor == "t")
    }

    /// Computed blocks and copied ones. Two neighbouring blocks that are together no more than a piece are stored as one.
    @Test(arguments: [(2, .bf16), (nil, .f32)] as [(Double?, DType)])
    func blocksAreTheSameInAnyPieces(scale: Double?, output: DType) async throws {
        let file = try input("in", count: Self.count), work = work(file, count: Self.count, scale: scale, output: output)
        let whole = Store(), digests = try await run(work, output: whole)
        let values = [UInt8](try LocalFiles().read("\(directory.path)/in", maxBytes: .max).suffix(4 * Self.count))
        if scale == nil { #expect(whole.bytes(ofTensor: 0) == values) }
        #expect(whole.blocks.withLock { $0[0]?.count } == (digests[0].count + 1) / 2)
        for pieceSize in [1 << 16, 1 << 20] {
            let pieces = Store(pieceSize: pieceSize)
            #expect(try await run(work, output: pieces) == digests)
            #expect(pieces.bytes(ofTensor: 0) == whole.bytes(ofTensor: 0))
            #expect(pieces.blocks.withLock { $0[0]?.values.allSatisfy { $0.count <= pieceSize } } == true)
        }
    }

    @Test func aCancelledShardStops() async throws {
        let file = try input("in", count: 100)
        let progress = ShardProgress()
        progress.cancel()
        await #expect(throws: CancellationError.self) { try await run(work(file, count: 100), progress: progress) }
    }

    @Test func shardsThatDoNotFitTheirFilesAreErrors() async throws {
        let file = try input("in", count: 100)
        for (what, work) in [
            (
                "offset beyond the file",
                work(file, count: 100) { $0 = StoredReference(file: 0, offset: file.size, dtype: .f32, shape: [100]) }
            ),
            ("negative offset", work(file, count: 100) { $0 = StoredReference(file: 0, offset: -8, dtype: .f32, shape: [100]) }),
            (
                "another number of elements",
                work(file, count: 100) { $0 = StoredReference(file: 0, offset: 0, dtype: .f32, shape: [99]) }
            ),
            ("file that is not listed", work(file, count: 100) { $0.file = 1 }),
            ("base that is no source", work(file, count: 100, base: 3)),
            ("unknown method", work(file, count: 100, method: "magic")),
        ] {
            let error = await #expect(throws: TesseraError.self, "\(what)") { try await run(work) }
            #expect(error?.tensor == "t")
        }
    }

    /// The coordinator of a worker may be a stranger: nothing is made as large as its claims.
    @Test func outputsThatTheOperationDoesNotWriteAreErrors() async throws {
        let file = try input("in", count: 100), tensor = try #require(work(file, count: 100).tensors.first)
        let output = OutputTensor(
            name: "t", dtype: .bf16, byteCount: 1 << 48, part: 0, offset: 0, blockSize: 1 << 16)
        let hostile = TensorWork(
            name: "t", shape: [100], operation: tensor.operation, sources: tensor.sources, outputs: [output])
        let error = await #expect(throws: TesseraError.self) {
            try await run(ShardWork(label: "s", files: [file], tensors: [hostile]))
        }
        #expect(
            error?.code == .badData && error?.problem.contains("outputs are not those") == true, "\(String(describing: error))")
    }

    @Test func aFileThatNobodyHasIsNamed() async throws {
        let error = await #expect(throws: TesseraError.self) {
            try await run(work(InputFile(path: "none", size: 1000, headerDigest: try .sha256(of: [])), count: 100))
        }
        #expect(error?.code == .inputMissing)
        #expect(error?.file == "none")
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
