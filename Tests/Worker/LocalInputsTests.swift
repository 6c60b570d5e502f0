import Checkpoints
import Core
import Foundation
import Logging
import Operators
import Protocol
import Synchronization
import TestSupport
import Testing
import Work
import Worker

/// A copy that is not the plan's file costs its host an attempt at most, and never the job.
@Suite struct LocalInputsTests {
    private static let path = "/data/model.safetensors"
    private static let good = TestTensor.encode([("t", TestTensor([1, 2, 3, 4]))])
    private let files = MemoryFiles([path: good])
    private let elsewhere = Elsewhere()
    private let input: InputFile

    /// What the coordinator would send.
    private final class Elsewhere: InputProvider {
        let asked = Atomic(0)

        func open(_ file: InputFile) throws -> any ByteSource {
            asked.add(1, ordering: .relaxed)
            return try MemoryFiles([LocalInputsTests.path: LocalInputsTests.good]).open(LocalInputsTests.path)
        }
    }

    init() throws {
        let header = try SafetensorsHeader.read(path: Self.path, in: files)
        input = InputFile(path: "model.safetensors", size: header.fileSize, headerDigest: header.digest)
    }

    private func inputs(fallback: Bool) throws -> LocalInputs {
        LocalInputs(
            roots: try Roots(["/data"], in: files), fallback: fallback ? elsewhere : nil, host: "node-7", log: .silent)
    }

    /// Whoever searches the log finds why in a field, as for all that goes wrong.
    @Test func theLogSaysWhyAnInputIsFetched() throws {
        let lines = RecordedLog()
        files.write(Array(Self.good.dropLast()), to: Self.path)
        let inputs = LocalInputs(
            roots: try Roots(["/data"], in: files), fallback: elsewhere, host: "node-7", log: lines.logger)
        #expect(try bytes(inputs) == Self.good)
        let line = try #require(lines.all.first)
        #expect(line.message == "fetching an input from the coordinator instead" && line.level == .warning)
        #expect(line.metadata["reason"].map { "\($0)".contains("/data/model.safetensors") } == true, "\(line.metadata)")
    }

    private func bytes(_ inputs: LocalInputs) throws -> [UInt8] { try inputs.open(input).bytes(0..<input.size) }

    @Test func anOwnCopyIsReadWhereItIs() throws {
        #expect(try bytes(try inputs(fallback: true)) == Self.good)
        #expect(elsewhere.asked.load(ordering: .relaxed) == 0)
    }

    private static let broken: [(String, [UInt8])] = [
        ("shorter", Array(good.dropLast())), ("empty", []), ("half a header", Array(good.prefix(20))),
        ("no safetensors", Array(repeating: 0xff, count: good.count)),
        ("another header", TestTensor.encode([("u", TestTensor([1, 2, 3, 4]))])),
    ]

    @Test(arguments: broken.map(\.0))
    func aWrongCopyIsFetchedInstead(what: String) throws {
        files.write(Self.broken.first { $0.0 == what }?.1 ?? [], to: Self.path)
        #expect(try bytes(try inputs(fallback: true)) == Self.good)
        #expect(elsewhere.asked.load(ordering: .relaxed) == 1)
    }

    /// Without another way the shard goes to another host: the error says whose copy it is, and is one that another host may not
    /// have.
    @Test(arguments: broken.map(\.0))
    func aWrongCopyIsThisHostsOwnTrouble(what: String) throws {
        files.write(Self.broken.first { $0.0 == what }?.1 ?? [], to: Self.path)
        let inputs = try inputs(fallback: false)
        let error = #expect(throws: TesseraError.self) { try inputs.open(input) }
        #expect(error?.code.isTransient == true && error?.problem.contains("the copy on node-7") == true)
    }

    /// The same names and shapes, other values: another fine-tune.
    @Test(arguments: [true, false])
    func aCopyWithOtherValuesIsRefused(fallback: Bool) throws {
        let pinned = InputFile(
            path: input.path, size: input.size, headerDigest: input.headerDigest,
            contents: ContentPin(sample: try ContentSample.digest(of: files.open(Self.path))))
        #expect(try inputs(fallback: false).open(pinned).bytes(0..<input.size) == Self.good)
        files.write(TestTensor.encode([("t", TestTensor([1, 2, 3, 5]))]), to: Self.path)
        guard !fallback else {
            #expect(try inputs(fallback: true).open(pinned).bytes(0..<input.size) == Self.good)
            return
        }
        let error = #expect(throws: TesseraError.self) { try inputs(fallback: false).open(pinned) }
        #expect(error?.code == .inputMissing && error?.file == Self.path)
        #expect(error?.problem.hasPrefix("the copy on node-7 is not the plan's file: has the size and header") == true)
        #expect(error?.problem.hasSuffix("not \(pinned.contents?.sample.hex ?? "")") == true)
    }

    @Test func aReplacedCopyIsOpenedAnew() throws {
        let inputs = try inputs(fallback: true)
        _ = try bytes(inputs)
        files.write(Array(Self.good.dropLast()), to: Self.path)
        #expect(try bytes(inputs) == Self.good)
        #expect(elsewhere.asked.load(ordering: .relaxed) == 1)
    }

    /// Files that count how often they are opened.
    private struct Counting: InputFiles {
        let files: MemoryFiles
        let opened = Opened()

        final class Opened: Sendable { let count = Atomic(0) }

        func list(_ directory: String) throws(TesseraError) -> [String] { try files.list(directory) }
        func status(of path: String) throws(TesseraError) -> FileStatus? { try files.status(of: path) }
        func canonicalPath(of path: String) throws(TesseraError) -> String? { try files.canonicalPath(of: path) }
        func open(_ path: String) throws(TesseraError) -> any ByteSource {
            opened.count.add(1, ordering: .relaxed)
            return try files.open(path)
        }
    }

    /// After an error such as ESTALE a descriptor is of no use, although the file is as it was.
    @Test func aFileThatFailedIsOpenedAnew() async throws {
        let counting = Counting(files: files)
        let inputs = LocalInputs(roots: try Roots(["/data"], in: counting), fallback: nil, host: "node-7", log: .silent)
        let runner = LeaseRunner(pool: ComputePool(threads: 1, memory: 1 << 28), inputs: inputs, outputs: LocalOutputs())
        files.add(.failing(at: input.size - 4, TesseraError(.io, "Stale file handle", file: Self.path)), to: Self.path)
        let error = await #expect(throws: TesseraError.self) { try await run(runner) }
        #expect(error?.code == .io && error?.problem == "Stale file handle")
        let before = counting.opened.count.load(ordering: .relaxed)
        files.heal(Self.path)
        let output = ShardExecutorTests.Store()
        _ = try await run(runner, output)
        #expect(output.bytes(ofTensor: 0) == Array(Self.good.suffix(16)))
        #expect(counting.opened.count.load(ordering: .relaxed) > before)
    }

    // MARK: While a shard runs

    private func run(_ runner: LeaseRunner, _ output: ShardExecutorTests.Store = .init()) async throws -> ShardDone {
        let tensor = TensorWork(
            name: "t", shape: [4],
            operation: .merge(
                MergeOperation(
                    method: "passthrough", values: ParameterValues(perInput: [["scale": .number(1)]]), base: nil,
                    codec: .rounding(to: .f32))),
            sources: [.stored(StoredReference(file: 0, offset: input.size - 16, dtype: .f32, shape: [4]))],
            outputs: Rounding(dtype: .f32).outputs(shape: [4]).map { OutputTensor($0, name: "t", part: 0, offset: 0) })
        let lease = Lease(
            attempt: Attempt(job: .none, shard: 0, epoch: 1, incarnation: 1), milliseconds: 1000,
            work: ShardWork(label: "s", files: [input], tensors: [tensor]))
        let result = try #require(await runner.run(lease, returning: output))
        return try result.get()
    }

    /// The size is right, the bytes are not there: as on a network file system whose server lost the end of a file.
    @Test func aCopyThatEndsEarlyIsNotUsedAgain() async throws {
        files.add(.truncated(to: input.size - 4), to: Self.path)
        let runner = LeaseRunner(
            pool: ComputePool(threads: 1, memory: 1 << 28), inputs: try inputs(fallback: true), outputs: LocalOutputs())
        let error = await #expect(throws: TesseraError.self) { try await run(runner) }
        #expect(error?.code == .io && error?.problem.contains("the copy on node-7") == true && error?.file == Self.path)
        let output = ShardExecutorTests.Store()
        _ = try await run(runner, output)
        #expect(output.bytes(ofTensor: 0) == Array(Self.good.suffix(16)))
        #expect(elsewhere.asked.load(ordering: .relaxed) == 1)
    }
}
