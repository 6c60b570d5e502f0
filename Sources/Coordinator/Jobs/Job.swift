import Checkpoints
import Core
import Journal
import Operators
import Planning
import Protocol
import TaskVectors
import TensorKernels
import Work

/// A plan, taken apart for those who need to know of it. Made where planning may take its time.
struct PlannedStages: Sendable {
    let plan: Plan
    /// What later stages are planned from, with the inputs that the first one found.
    let request: PlanRequest
    /// Statistics of the analysis stages that came before the plan.
    let earlierStatistics: [[ExactText: TensorStatistics]]
    /// The shards of all stages in one row.
    let shards: [PlannedShard]
    let costs: [[ShardCost]]
    let summary: PlanSummary
    /// The input files, without what they hold.
    let files: Set<InputFile>

    /// What the journal keeps of the plan.
    var journaled: JournaledPlan {
        JournaledPlan(
            digest: plan.digest, method: plan.method, shardCount: shards.count, bytesInput: summary.bytesInput,
            bytesOutput: summary.bytesOutput, pinnedFiles: plan.pinnedFiles)
    }

    init(_ plan: Plan, request: PlanRequest, after earlierStatistics: [[ExactText: TensorStatistics]] = []) {
        self.plan = plan
        self.request = request
        self.earlierStatistics = earlierStatistics
        shards = Array(plan.stages.joined())
        costs = zip(plan.stages, plan.estimates).map { stage, estimates in
            zip(stage, estimates).map { shard, estimate in
                ShardCost(estimate, label: shard.label, byteCount: shard.progressByteCount)
            }
        }
        summary = PlanSummary(
            method: plan.method, digest: plan.digest, bytesInput: plan.inputs.reduce(0) { $0 + $1.byteCount },
            bytesOutput: shards.reduce(0) { $0 + $1.byteCount },
            shards: shards.map {
                ShardSummary(label: $0.label, byteCount: $0.progressByteCount, tensorCount: $0.tensors.count)
            },
            description: PlanDescription(
                recipeName: plan.recipeName, recipe: plan.recipeText, method: plan.method, digest: plan.digest,
                inputs: plan.inputs.map { .init(name: $0.reference, files: $0.parts.count, bytes: $0.byteCount) },
                parts: plan.layout.parts.map { .init(file: $0.fileName, tensors: $0.tensors.count, bytes: $0.fileSize) },
                warnings: plan.warnings, remarks: plan.remarks))
        files = Set(plan.files.map(\.unpinned))
    }

    var hasMoreStages: Bool { plan.hasMoreStages }
}

/// What a job that has not ended is worked on with: its plan, its unfinished output, the results so far.
struct Job: Sendable {
    let options: JobOptions
    let output: any OutputTransaction
    /// What later stages are planned from.
    let request: PlanRequest
    /// The plan in hand; a job with analysis stages gets others. Those before it are kept for an audit alone.
    private var plans: [JobPlan]
    /// Statistics of the analysis stages before the plan in hand.
    private var earlierStatistics: [[ExactText: TensorStatistics]] = []
    /// Every input file of all plans, without what they hold.
    private(set) var files: Set<InputFile>

    /// The scheduler's number of the first shard of the plan in hand.
    private var firstNumber = 0
    /// Does shards again, numbered behind those of the plan in hand; `nil` for a job without an audit.
    var audit: Audit?
    /// The blocks that came, by shard and epoch, each with its digest once it is stored.
    private var arrived: [Int: [UInt64: [BlockPosition: Digest?]]] = [:]
    /// Results that were reported and are not committed yet.
    private var reported: [Int: Report] = [:]
    private var bytesWritten = 0
    private var bytesRead = 0
    private var shares: [String: RunReport.Worker] = [:]

    private struct Report {
        let epoch: UInt64
        let result: ShardResult
        let delivery: Delivery
    }

    init(_ stages: PlannedStages, output: any OutputTransaction, options: JobOptions, audit: Audit? = nil) {
        self.audit = audit
        self.output = output
        self.options = options
        plans = [JobPlan(stages, first: 0)]
        request = stages.request
        files = stages.files
    }

    private var current: JobPlan { plans[plans.count - 1] }

    /// The plan in hand.
    var plan: Plan { current.plan }

    /// Goes on with the plan that follows from the statistics of earlier ones.
    mutating func take(_ stages: PlannedStages) {
        let next = JobPlan(stages, first: current.first + current.shards.count)
        firstNumber += current.shards.count + (audit?.items.count ?? 0)
        audit?.begin()
        plans = audit == nil ? [next] : plans + [next]
        earlierStatistics = stages.earlierStatistics
        files.formUnion(stages.files)
    }

    /// A shard by the scheduler's number: one of the plan in hand, or one that is done again.
    func shard(_ number: Int) -> PlannedShard? { place(of: number).map(shard(at:)) }

    func shard(at place: ShardPlace) -> PlannedShard { plans[place.plan].shards[place.index] }

    /// What each shard is expected to take, by plan.
    var estimates: [[ShardEstimate]] { plans.map { Array($0.plan.estimates.joined()) } }

    private func place(of number: Int) -> ShardPlace? {
        let index = number - firstNumber, count = current.shards.count
        if current.shards.indices.contains(index) { return ShardPlace(plan: plans.count - 1, index: index) }
        guard let items = audit?.items, items.indices.contains(index - count) else { return nil }
        return items[index - count].place
    }

    /// What a worker is sent of the shard.
    func work(_ number: Int) -> ShardWork? { place(of: number).map { plans[$0.plan].plan.work(of: shard(at: $0)) } }

    /// Where workers that see the output write the shard's bytes; `nil` where nobody can, or where the shard has none.
    func place(_ number: Int, machine: String?) -> OutputPlace? {
        guard let location = output.location, let shard = shard(number) else { return nil }
        let numbers = Set(shard.outputs.map(\.part)).sorted()
        guard !numbers.isEmpty else { return nil }
        let parts = numbers.map {
            OutputPlace.Part(number: $0, name: plan.layout.parts[$0].fileName, size: plan.layout.parts[$0].fileSize)
        }
        return OutputPlace(
            directory: location.directory, relative: location.relative,
            machine: OutputPlace.cache(machine: machine, device: location.device), parts: parts)
    }

    // MARK: Results

    /// Blocks that came together are stored.
    mutating func stored(_ digests: [BlockPosition: Digest], of attempt: Attempt) {
        for (block, digest) in digests { arrived[attempt.shard]?[attempt.epoch]?[block] = .some(digest) }
    }

    /// Forgets what arrived of an attempt that is over.
    mutating func forget(_ attempt: Attempt) {
        arrived[attempt.shard]?[attempt.epoch] = nil
        if arrived[attempt.shard]?.isEmpty == true { arrived[attempt.shard] = nil }
        if reported[attempt.shard]?.epoch == attempt.epoch { reported[attempt.shard] = nil }
    }

    /// Takes the result of a finished attempt, after checking that its digests and statistics fit the shard. Unless the worker
    /// wrote its blocks itself, all of them must be stored, and their digests are those of what was stored. What is wrong is the
    /// worker's fault, and another may do better.
    ///
    /// - Throws: `temporary` for a result that does not fit the plan or its blocks.
    mutating func report(_ result: ShardResult, of attempt: Attempt, delivery: Delivery) throws(TesseraError) {
        guard let planned = shard(attempt.shard) else {
            throw TesseraError(.temporary, "a result for shard \(attempt.shard), which the plan does not have")
        }
        let result = delivery == .relayed ? try completed(result, of: attempt, planned) : result
        do throws(TesseraError) { try planned.check(result) } catch {
            var failure = error
            failure.code = .temporary
            throw failure
        }
        reported[attempt.shard] = Report(epoch: attempt.epoch, result: result, delivery: delivery)
    }

    /// The result with the digests of the blocks that came.
    private func completed(
        _ result: ShardResult, of attempt: Attempt, _ planned: PlannedShard
    ) throws(TesseraError) -> ShardResult {
        guard result.digests.isEmpty else {
            throw TesseraError(.temporary, "the result for \(planned.label) has digests of blocks that the worker sent")
        }
        let blocks = arrived[attempt.shard]?[attempt.epoch] ?? [:]
        let digests = planned.outputs.enumerated().map { tensor, output in
            (0..<output.blockCount).compactMap { blocks[BlockPosition(tensor: tensor, offset: $0 * output.blockSize)] ?? nil }
        }
        let found = digests.reduce(0) { $0 + $1.count }, expected = planned.outputs.reduce(0) { $0 + $1.blockCount }
        guard found == expected else {
            throw TesseraError(.temporary, "the result for \(planned.label) came with \(found) of \(expected) blocks")
        }
        return ShardResult(digests: digests, statistics: result.statistics)
    }

    /// A block of a result that the worker says it wrote itself, drawn at random; `nil` for a result without such blocks.
    func sample(of record: CommitRecord) -> BlockSample? {
        guard record.delivery == .direct, let planned = shard(record.attempt.shard),
            let (output, digests) = zip(planned.outputs, record.result.digests).filter({ !$1.isEmpty }).randomElement(),
            let (index, digest) = Array(digests.enumerated()).randomElement()
        else { return nil }
        let start = index * output.blockSize, length = min(output.blockSize, output.byteCount - start)
        return BlockSample(
            output: self.output, file: plan.layout.parts[output.part].fileName, tensor: output.name,
            range: output.offset + start..<output.offset + start + length, digest: digest)
    }

    /// The reported result of an attempt; `nil` when there is none.
    func record(of attempt: Attempt, by worker: WorkerReference, time: AttemptTime?) -> CommitRecord? {
        guard let report = reported[attempt.shard], report.epoch == attempt.epoch else { return nil }
        guard let place = place(of: attempt.shard) else { return nil }
        return CommitRecord(
            attempt: attempt, shard: plans[place.plan].first + place.index, worker: worker, result: report.result,
            delivery: report.delivery, parts: Set(shard(at: place).outputs.map(\.part)), time: time)
    }

    /// Where a block of a leased shard belongs, or two neighbours.
    ///
    /// - Throws: `protocolMismatch` for blocks that the plan does not have, and for those that came before: of two writes at the
    ///   same time nobody knows which is the last.
    mutating func target(of attempt: Attempt, tensor: Int, offset: Int, byteCount: Int) throws(TesseraError) -> BlockTarget? {
        guard let planned = shard(attempt.shard) else { return nil }
        let outputs = planned.outputs
        guard outputs.indices.contains(tensor), offset % outputs[tensor].blockSize == 0,
            (0..<outputs[tensor].byteCount).contains(offset),
            let blocks = BlockPair(outputs[tensor], at: offset, byteCount: byteCount)
        else {
            throw TesseraError(
                .protocolMismatch,
                "blocks of \(byteCount) bytes at \(offset) do not fit tensor \(tensor) of \(planned.label)")
        }
        let target = BlockTarget(
            output: output, part: outputs[tensor].part, start: outputs[tensor].offset, tensor: tensor, blocks: blocks)
        for position in target.positions where arrived[attempt.shard]?[attempt.epoch]?[position] != nil {
            throw TesseraError(
                .protocolMismatch, "the block at \(position.offset) of tensor \(tensor) of \(planned.label) came twice")
        }
        for position in target.positions {
            arrived[attempt.shard, default: [:]][attempt.epoch, default: [:]][position] = .some(nil)
        }
        return target
    }

    /// Makes a result the shard's own.
    ///
    /// - Parameter host: where the worker runs.
    /// - Returns: bytes of the shard's output.
    mutating func commit(_ record: CommitRecord, host: String?) -> Int {
        reported[record.attempt.shard] = nil
        arrived[record.attempt.shard] = nil
        return place(of: record.attempt.shard).map { take(record.journaled, at: $0, host: host) } ?? 0
    }

    /// Takes the results of shards that an earlier coordinator committed.
    ///
    /// - Throws: `protocolMismatch` for a result that does not fit the plan.
    mutating func keep(_ kept: [JournaledShard]) throws(TesseraError) {
        for entry in kept {
            guard let plan = plans.lastIndex(where: { $0.first <= entry.attempt.shard }) else { continue }
            let place = ShardPlace(plan: plan, index: entry.attempt.shard - plans[plan].first)
            guard plans[plan].shards.indices.contains(place.index) else { continue }
            try shard(at: place).check(entry.result)
            _ = take(entry, at: place, host: nil)
        }
    }

    private mutating func take(_ committed: JournaledShard, at place: ShardPlace, host: String?) -> Int {
        let planned = shard(at: place), vote = Audit.Vote(host: host, worker: committed.worker, result: committed.result)
        if plans[place.plan].results[place.index] == nil {
            bytesWritten += planned.byteCount
            bytesRead += planned.sourceByteCount
        }
        plans[place.plan].results[place.index] = vote
        shares[vote.worker, default: RunReport.Worker(name: vote.worker)].add(bytes: planned.byteCount, committed.delivery)
        return planned.byteCount
    }

    /// Who has committed each shard, and what came out, by plan: those before the plan in hand are there for an audit alone.
    var votes: [[Audit.Vote?]] { plans.map(\.results) }

    /// The number of the plan's first shard in the journal.
    var firstShard: Int { current.first }

    func blocksByPart() throws(TesseraError) -> [[TensorBlocks]] { try current.blocksByPart() }

    /// The statistics of each tensor of the plan in hand, by the models' name for it, once every shard is committed.
    func statistics() throws(TesseraError) -> [ExactText: TensorStatistics] { try current.statistics() }

    /// The statistics of every stage so far, once every shard of the plan in hand is committed.
    func allStatistics() throws(TesseraError) -> [[ExactText: TensorStatistics]] { earlierStatistics + [try statistics()] }

    /// - Parameters:
    ///   - record: the job's entry in the registry.
    ///   - seconds: from submission to now.
    func report(of record: JobRecord, seconds: Double) -> RunReport {
        RunReport(
            job: record.id.description, startedAt: JobDocument.time(record.submittedAt), seconds: seconds,
            shards: record.progress.shards.total,
            attempts: record.progress.attempts, bytesRead: bytesRead, bytesWritten: bytesWritten,
            workers: shares.values.sorted { $0.name < $1.name })
    }
}

/// A block of a shard's output.
struct BlockPosition: Hashable {
    let tensor: Int
    /// Bytes from the beginning of the tensor.
    let offset: Int
}

/// A block that must be in an unfinished output.
struct BlockSample: Sendable {
    let output: any OutputTransaction
    /// The part's name.
    let file: String
    let tensor: String
    /// Bytes from the beginning of the part.
    let range: Range<Int>
    let digest: Digest

    /// Reads the block back. May wait for a disk.
    ///
    /// - Returns: what is wrong with it, which is the worker's fault.
    /// - Throws: when the output cannot be read, which is not.
    func problem() throws -> TesseraError? {
        guard try Digest.sha256(of: output.open(file).bytes(range)) != digest else { return nil }
        return TesseraError(
            .io, "a block that the worker says it wrote is not in the output", file: file, tensor: tensor,
            advice: "look at that worker: does it see the coordinator's output root? '--blocks return' sends blocks instead")
    }
}

extension BlockPair {
    /// The blocks of a tensor that begin at `offset`; `nil` where so many bytes are neither one nor two of them.
    fileprivate init?(_ output: OutputTensor, at offset: Int, byteCount: Int) {
        let rest = output.byteCount - offset, size = output.blockSize
        guard byteCount == min(size, rest) || byteCount == min(2 * size, rest) else { return nil }
        self.init(index: offset / size, offset..<offset + byteCount, blockSize: size)
    }
}

/// Where a block of a leased shard belongs, or two neighbours that came together.
package struct BlockTarget: Sendable {
    let output: any OutputTransaction
    let part: Int
    /// Of the tensor, in bytes from the beginning of the part.
    let start: Int
    let tensor: Int
    let blocks: BlockPair

    var positions: [BlockPosition] {
        [blocks.first, blocks.second].filter { !$0.isEmpty }.map { BlockPosition(tensor: tensor, offset: $0.lowerBound) }
    }

    /// Writes the blocks to their place. May wait for a disk.
    ///
    /// - Returns: the digests.
    func write(_ bytes: UnsafeRawBufferPointer) throws(TesseraError) -> [BlockPosition: Digest] {
        let hash = try SHA256Pair()
        // A piece of either block is still in the L2 cache when both are hashed.
        for (first, second) in blocks.pieces(of: Self.pieceBytes) {
            for piece in [first, second] where !piece.isEmpty {
                try output.put(blocks.contents(of: piece, in: bytes), part: part, at: start + piece.lowerBound)
            }
            hash.update(blocks.contents(of: first, in: bytes), blocks.contents(of: second, in: bytes))
        }
        let (first, second) = try hash.finalize()
        return Dictionary(uniqueKeysWithValues: zip(positions, [first, second]))
    }

    private static let pieceBytes = 256 << 10
}
