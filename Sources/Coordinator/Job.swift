import Checkpoints
import Core
import Planning
import Protocol
import TaskVectors
import Work

/// One job while the coordinator has it in hand.
struct Job {
    let id: JobID
    /// What later stages are planned from, with the inputs that the first one found.
    let request: PlanRequest
    /// Of the analysis stages that are over.
    private var earlierStatistics: [[ExactText: TensorStatistics]] = []
    /// The plan in hand; a job that has to look at its inputs first gets others.
    private(set) var plan: Plan
    /// Gone once the job has ended, and with it the files that it keeps open.
    var assembler: Assembler?
    let output: String
    let options: JobOptions
    let startedAt: Duration
    /// Seconds since 1970, for people; nothing is decided by it.
    let submittedAt: Double
    var state = JobState.running
    var error: TesseraError?
    var endedAt: Duration?

    /// The shards of all plans in one row, as the scheduler counts them.
    private(set) var shards: [PlannedShard] = []
    /// Those of the plan in hand.
    private var current: Range<Int> = 0..<0
    /// What came out of each committed shard.
    private var results: [ShardResult?] = []
    /// The blocks that are stored, by shard, for the attempt with that epoch.
    private var arrived: [Int: [UInt64: Set<BlockPosition>]] = [:]
    /// Results that came and wait for the scheduler's word.
    private var reported: [Int: [UInt64: (result: ShardResult, delivery: Delivery)]] = [:]
    private(set) var bytesWritten = 0
    private(set) var bytesRead = 0
    var attempts = 0
    private var shares: [String: RunReport.Worker] = [:]
    private var committers: [Int: String] = [:]

    init(
        id: JobID, request: PlanRequest, plan: Plan, assembler: Assembler, output: String, options: JobOptions,
        startedAt: Duration, submittedAt: Double
    ) {
        self.id = id
        var request = request
        request.pinnedInputs = plan.inputs
        self.request = request
        self.plan = plan
        self.assembler = assembler
        self.output = output
        self.options = options
        self.startedAt = startedAt
        self.submittedAt = submittedAt
        files = plan.files
        addShards()
    }

    /// The statistics of every stage so far, once the one in hand is over.
    func allStatistics() throws(TesseraError) -> [[ExactText: TensorStatistics]] { earlierStatistics + [try statistics()] }

    /// Goes on with the plan that follows from `statistics`.
    mutating func append(_ plan: Plan, after statistics: [[ExactText: TensorStatistics]], assembler: Assembler) {
        earlierStatistics = statistics
        self.plan = plan
        self.assembler = assembler
        files.formUnion(plan.files)
        addShards()
    }

    private mutating func addShards() {
        let added = plan.stages.joined()
        current = shards.count..<shards.count + added.count
        shards += added
        results += Array(repeating: nil, count: added.count)
    }

    /// A shard of the plan in hand, as it is sent; no other is leased.
    func work(_ shard: Int) -> ShardWork { plan.work(of: shards[shard]) }

    /// Where the shard's bytes belong.
    func place(_ shard: Int, outputRoot: String?, machine: String?) -> OutputPlace? {
        guard let directory = assembler?.directory else { return nil }
        let numbers = Set(shards[shard].outputs.map(\.part)).sorted()
        guard !numbers.isEmpty else { return nil }
        let parts = numbers.map {
            OutputPlace.Part(number: $0, name: plan.layout.parts[$0].fileName, size: plan.layout.parts[$0].fileSize)
        }
        return OutputPlace(
            directory: directory, relative: outputRoot.map { OutputPath.relative(directory, to: $0) }, machine: machine,
            parts: parts)
    }

    /// Every input file, as leases name them.
    private(set) var files: Set<InputFile>

    /// The name of the worker whose result the shard's is.
    func worker(of shard: Int) -> String? { committers[shard] }

    // MARK: Results

    mutating func arrived(_ block: BlockPosition, of attempt: Attempt) {
        arrived[attempt.shard, default: [:]][attempt.epoch, default: []].insert(block)
    }

    /// Takes the result of a finished attempt, after checking that it fits the shard and, unless the worker wrote them itself, that all of its
    /// blocks are here.
    mutating func report(_ result: ShardResult, of attempt: Attempt, delivery: Delivery) throws(TesseraError) {
        guard shards.indices.contains(attempt.shard) else {
            throw TesseraError(.protocolMismatch, "a result for shard \(attempt.shard) of \(shards.count)")
        }
        let planned = shards[attempt.shard]
        guard result.digests.map(\.count) == planned.outputs.map(\.blockCount),
            result.statistics.isEmpty || result.statistics.count == planned.tensors.count
        else {
            throw TesseraError(.protocolMismatch, "the result for \(planned.label) has digests for other blocks than the plan's")
        }
        let blocks = arrived[attempt.shard]?[attempt.epoch]?.count ?? 0, expected = result.digests.reduce(0) { $0 + $1.count }
        guard delivery == .direct || blocks == expected else {
            throw TesseraError(.temporary, "the result for \(planned.label) came with \(blocks) of \(expected) blocks")
        }
        reported[attempt.shard, default: [:]][attempt.epoch] = (result, delivery)
    }

    /// Makes a reported attempt the shard's result.
    ///
    /// - Returns: how its blocks came; `nil` when no such attempt was reported.
    mutating func commit(_ attempt: Attempt, worker: String) -> Delivery? {
        let shard = attempt.shard
        guard let (result, delivery) = reported[shard]?[attempt.epoch] else { return nil }
        results[shard] = result
        committers[shard] = worker
        reported[shard] = nil
        arrived[shard] = nil
        let planned = shards[shard]
        bytesWritten += planned.byteCount
        bytesRead += planned.sourceByteCount
        shares[worker, default: RunReport.Worker(name: worker)].add(bytes: planned.byteCount, delivery)
        return delivery
    }

    /// The plan's blocks by part and position in the part, once every shard is committed.
    func blocksByPart() throws(TesseraError) -> [[TensorBlocks]] {
        var parts = plan.layout.parts.map { Array(repeating: TensorBlocks?.none, count: $0.tensors.count) }
        let positions = plan.layout.parts.map { part in
            // An empty tensor begins where the next one does, and has no blocks.
            Dictionary(
                uniqueKeysWithValues: part.tensors.enumerated().filter { $1.byteCount > 0 }.map { ($1.range.lowerBound, $0) })
        }
        for (shard, result) in zip(shards[current], try committedResults()) {
            for (output, digests) in zip(shard.outputs, result.digests) where output.byteCount > 0 {
                guard let position = positions[output.part][output.offset] else { continue }
                parts[output.part][position] = TensorBlocks(size: output.blockSize, digests: digests)
            }
        }
        return parts.map { $0.map { $0 ?? TensorBlocks(digests: []) } }
    }

    /// What was found in each tensor of the plan in hand, by the models' name for it, once every shard is committed.
    func statistics() throws(TesseraError) -> [ExactText: TensorStatistics] {
        var statistics: [ExactText: TensorStatistics] = [:]
        for (shard, result) in zip(shards[current], try committedResults()) {
            for (tensor, found) in zip(shard.tensors, result.statistics) { statistics[ExactText(tensor.name)] = found }
        }
        return statistics
    }

    private func committedResults() throws(TesseraError) -> [ShardResult] {
        var found: [ShardResult] = []
        for shard in current {
            guard let result = results[shard] else {
                throw TesseraError(.internal, "the shard \(shards[shard].label) has no result")
            }
            found.append(result)
        }
        return found
    }

    func report(endedAt: Duration) -> RunReport {
        RunReport(
            job: id.description, startedAt: submittedAt, seconds: (endedAt - startedAt).seconds, shards: shards.count,
            attempts: attempts,
            bytesRead: bytesRead, bytesWritten: bytesWritten, workers: shares.values.sorted { $0.name < $1.name })
    }
}

/// A block of a shard's output.
struct BlockPosition: Hashable {
    let tensor: Int
    /// Bytes from the tensor's beginning.
    let offset: Int
}

extension Duration {
    var seconds: Double { self / .seconds(1) }
}
