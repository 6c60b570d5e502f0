import Core
import Dispatch
import Protocol
import Synchronization
import TestSupport
import Work

@testable import Worker

/// The models and recipes of the simulated jobs, and what comes out of each shard by the real executor.
enum ReferenceWork {
    /// Two models of a few small tensors, each in one file.
    static let files: MemoryFiles = {
        let files = MemoryFiles()
        for (model, value) in [("a", Float(1)), ("b", 2)] {
            let tensors = (0..<5).map { ("layers.\($0).w", TestTensor((0..<8).map { value * Float($0 + 1) })) }
            files.write(TestTensor.encode(tensors), to: "/models/\(model)/model.safetensors")
            files.write(Array(#"{"torch_dtype": "float32"}"#.utf8), to: "/models/\(model)/config.json")
        }
        return files
    }()

    static let recipes = [
        "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n",
        "merge_method: ties\nbase_model: a\nmodels:\n- {model: b, parameters: {density: 0.5, weight: 1}}\n",
        // Its sizes depend on data: the job begins with an analysis stage, and is planned again after it.
        "sparsify: {method: dare, density: 0.5}\nbase_model: a\nmodels:\n- {model: b, task: b}\n",
        // Three stages measure the whole model before it merges.
        "merge_method: ties\nbase_model: a\nmodels:\n- {model: b, parameters: {density: 0.5, weight: 1}}\n"
            + "parameters: {trim: model}\n",
    ]

    static func submission(recipe: Int, output: String, key: String? = nil, audit: Double? = nil) -> Submit {
        Submit(
            recipe: recipes[recipe], recipeName: "recipe.yml", workingDirectory: "/models", output: output,
            options: JobOptions(maxPartBytes: recipe == 2 ? nil : 64, shardBytes: 1, audit: audit), idempotencyKey: key)
    }

    struct Block: Sendable {
        let tensor: Int
        /// Bytes from the beginning of the tensor.
        let offset: Int
        let bytes: [UInt8]
    }

    struct Outcome: Sendable {
        let result: ShardResult
        let blocks: [Block]
    }

    private static let outcomes = Mutex<[ShardWork: Outcome]>([:])
    private static let pool = ComputePool(threads: 1, memory: 1 << 30)

    /// Blocks the calling thread while the shard is computed for the first time.
    static func outcome(of work: ShardWork) throws -> Outcome {
        if let known = outcomes.withLock({ $0[work] }) { return known }
        let collector = Collector(), done = DispatchSemaphore(value: 0)
        let answer = Mutex<Result<ShardResult, any Error>?>(nil)
        Task.detached {
            let executor = ShardExecutor(pool: pool, inputs: LocalInputs(planningHostWith: Roots(everythingIn: files)))
            do {
                let result = try await executor.run(work, output: collector, progress: ShardProgress())
                answer.withLock { $0 = .success(result) }
            } catch {
                answer.withLock { $0 = .failure(error) }
            }
            done.signal()
        }
        done.wait()
        guard let result = try answer.withLock({ try $0?.get() }) else { throw TesseraError(.internal, "no result") }
        let outcome = Outcome(result: result, blocks: collector.blocks)
        outcomes.withLock { $0[work] = outcome }
        return outcome
    }

    private final class Collector: ShardOutput {
        private let stored = Mutex<[Block]>([])

        var blocks: [Block] { stored.withLock { $0.sorted { ($0.tensor, $0.offset) < ($1.tensor, $1.offset) } } }

        var pieceSize: Int { TreeDigest.blockSize }

        func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
            stored.withLock { $0.append(Block(tensor: tensor, offset: offset, bytes: Array(bytes))) }
        }

        func finish() {}
    }
}

/// Computes shards as a worker does, in simulated time: the bytes are those of the real executor.
final class SimulatedRunner: ShardRunner, @unchecked Sendable {
    private let process: SimulatedProcess
    private let disk: SimulatedDisk
    private let history: History
    /// Seconds that a shard takes at most, most of the time.
    var pace = 8.0
    /// Share of the shards that fail for a reason that may pass.
    var failures = 0.0
    /// How blocks reach the output.
    private let path: Path
    /// Share of the shards that come out wrong, with digests that fit.
    private let wrongs: Double
    /// Asks the coordinator for the inputs; `nil` on a host that has them.
    var fetches: FetchClient?
    /// Tells the worker to finish what it has and leave.
    var drain: () -> Void = {}
    private var active: [Attempt: ShardProgress] = [:]

    enum Path: CaseIterable {
        case relayed
        /// In the page cache of the coordinator's host.
        case sameHost
        /// Through a network file system.
        case otherHost
    }

    init(_ process: SimulatedProcess, disk: SimulatedDisk, history: History, path: Path, wrongs: Double) {
        self.wrongs = wrongs
        self.process = process
        self.disk = disk
        self.history = history
        self.path = path
    }

    func run(_ lease: Lease, returning output: any ShardOutput) async -> Result<ShardDone, TesseraError>? {
        let progress = ShardProgress()
        active[lease.attempt] = progress
        defer { active[lease.attempt] = nil }
        do {
            history.began(lease, at: process)
            try await process.rest(process.simulation.delay(pace))
            guard !progress.isCancelled else { return nil }
            if let fetches { for file in lease.work.files { try await fetch(file, from: fetches) } }
            guard !process.simulation.chance(failures) else { throw TesseraError(.io, "a read failed", file: "/models/a") }
            var outcome = try ReferenceWork.outcome(of: lease.work)
            if wrongs > 0, process.simulation.chance(wrongs) {
                outcome = try outcome.spoiled(lease.work)
                history.computedWrongly(lease.attempt)
            }
            let place = path == .relayed ? nil : lease.output
            for block in outcome.blocks {
                if let place {
                    try write(block, of: lease.work, to: place)
                } else {
                    try block.bytes.withUnsafeBytes { try output.store($0, tensor: block.tensor, offset: block.offset) }
                }
                progress.add(block.bytes.count)
                if process.simulation.chance(0.2) { try await process.rest(.seconds(1)) }
                guard !progress.isCancelled, process.isAlive else { return nil }
            }
            let digests = place == nil ? [] : outcome.result.digests
            return .success(
                ShardDone(
                    attempt: lease.attempt, result: ShardResult(digests: digests, statistics: outcome.result.statistics),
                    delivery: place == nil ? .relayed : .direct))
        } catch is CancellationError {
            return nil
        } catch {
            return progress.isCancelled ? nil : .failure(TesseraError(wrapping: error))
        }
    }

    /// Fetches some part of the file.
    private func fetch(_ file: InputFile, from fetches: FetchClient) async throws {
        let start = process.simulation.draw(0..<file.size), end = process.simulation.draw(start..<file.size) + 1
        let bytes = try await withCheckedThrowingContinuation { continuation in
            fetches.ask(for: start..<end, of: file) { continuation.resume(with: $0) }
        }
        history.fetched(bytes, of: file, start..<end)
    }

    private func write(_ block: ReferenceWork.Block, of work: ShardWork, to place: OutputPlace) throws(TesseraError) {
        let tensor = work.outputs[block.tensor]
        guard let part = place.parts.first(where: { $0.number == tensor.part }) else {
            throw TesseraError(.internal, "the lease does not name part \(tensor.part)")
        }
        try process.crashPoint()
        try disk.write(
            block.bytes, in: place.directory, part: part.name, at: tensor.offset + block.offset, syncs: path == .otherHost)
    }

    func stop(_ attempt: Attempt) { active[attempt]?.cancel() }

    func stopAll() { for progress in active.values { progress.cancel() } }

    var progress: [LeaseProgress] {
        active.map { LeaseProgress(attempt: $0.key, bytesDone: $0.value.bytesDone) }.sorted { $0.attempt < $1.attempt }
    }
}
