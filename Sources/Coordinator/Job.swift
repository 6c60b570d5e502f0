import Checkpoints
import Planning
import Protocol

/// One job while the coordinator has it in hand.
struct Job {
    let id: JobID
    let plan: Plan
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

    /// The shards of all stages in one row, as the scheduler counts them.
    let shards: [(stage: Int, index: Int)]
    /// Block digests of each committed shard's tensors.
    private var digests: [[[Digest]]?]
    /// The blocks that are stored, by shard, for the attempt with that epoch.
    private var arrived: [Int: [UInt64: Set<BlockPosition>]] = [:]
    /// Digests that came with a result and wait for the scheduler's word.
    private var reported: [Int: [UInt64: [[Digest]]]] = [:]
    private(set) var bytesWritten = 0
    private(set) var bytesRead = 0
    var attempts = 0
    private var shares: [String: RunReport.Worker] = [:]
    private var committers: [Int: String] = [:]

    init(
        id: JobID, plan: Plan, assembler: Assembler, output: String, options: JobOptions, startedAt: Duration, submittedAt: Double
    ) {
        self.id = id
        self.plan = plan
        self.assembler = assembler
        self.output = output
        self.options = options
        self.startedAt = startedAt
        self.submittedAt = submittedAt
        shards = plan.stages.enumerated().flatMap { stage, shards in shards.indices.map { (stage, $0) } }
        digests = Array(repeating: nil, count: shards.count)
        files = plan.files
    }

    func planned(_ shard: Int) -> PlannedShard { plan.stages[shards[shard].stage][shards[shard].index] }

    func work(_ shard: Int) -> ShardWork { plan.work(stage: shards[shard].stage, shard: shards[shard].index) }

    /// Every input file, as leases name them.
    let files: Set<InputFile>

    /// The name of the worker whose result the shard's is.
    func worker(of shard: Int) -> String? { committers[shard] }

    // MARK: Results

    mutating func arrived(_ block: BlockPosition, of attempt: Attempt) {
        arrived[attempt.shard, default: [:]][attempt.epoch, default: []].insert(block)
    }

    /// Takes the digests of a finished attempt, after checking that they fit the shard and that all of its blocks are here.
    mutating func report(_ tensors: [[Digest]], of attempt: Attempt, streamed: Bool) throws(TesseraError) {
        guard shards.indices.contains(attempt.shard) else {
            throw TesseraError(.protocolMismatch, "a result for shard \(attempt.shard) of \(shards.count)")
        }
        let planned = planned(attempt.shard)
        guard tensors.map(\.count) == planned.tensors.map({ TreeDigest.blockCount(ofBytes: $0.byteCount) }) else {
            throw TesseraError(.protocolMismatch, "the result for \(planned.label) has digests for other blocks than the plan's")
        }
        let blocks = arrived[attempt.shard]?[attempt.epoch]?.count ?? 0, expected = tensors.reduce(0) { $0 + $1.count }
        guard !streamed || blocks == expected else {
            throw TesseraError(.temporary, "the result for \(planned.label) came with \(blocks) of \(expected) blocks")
        }
        reported[attempt.shard, default: [:]][attempt.epoch] = tensors
    }

    /// Makes a reported attempt the shard's result.
    mutating func commit(_ attempt: Attempt, worker: String) -> Bool {
        let shard = attempt.shard
        guard let tensors = reported[shard]?[attempt.epoch] else { return false }
        digests[shard] = tensors
        committers[shard] = worker
        reported[shard] = nil
        arrived[shard] = nil
        let planned = planned(shard)
        bytesWritten += planned.byteCount
        bytesRead += planned.sourceByteCount
        shares[worker, default: RunReport.Worker(name: worker, shards: 0, bytesWritten: 0)].shards += 1
        shares[worker]?.bytesWritten += planned.byteCount
        return true
    }

    /// Block digests by part and position in the part, once every shard is committed.
    func digestsByPart() throws(TesseraError) -> [[[Digest]]] {
        var byName: [String: [Digest]] = [:]
        for (shard, tensors) in digests.enumerated() {
            guard let tensors else {
                throw TesseraError(.internal, "the shard \(planned(shard).label) has no result")
            }
            for (work, blocks) in zip(planned(shard).tensors, tensors) { byName[work.name] = blocks }
        }
        return plan.layout.parts.map { $0.tensors.map { byName[$0.name] ?? [] } }
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
