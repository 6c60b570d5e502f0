import Checkpoints
import Core
import FoundationEssentials
import Journal
import Planning
import Protocol
import Work

/// A job that an earlier coordinator began.
struct ResumedJob: Sendable {
    let job: Job
    /// All plans so far.
    let plans: [PlannedStages]
    /// Shards that are not done again.
    let kept: [KeptShard]
}

/// Plans jobs and lays out their output. Waits for disks.
struct JobPlanner: Sendable {
    private let settings: JobManager.Settings
    private let outputs: any OutputStore
    private let journal: any JobJournal
    private let time: TimeSource

    init(settings: JobManager.Settings, outputs: any OutputStore, journal: any JobJournal, time: TimeSource) {
        self.time = time
        self.settings = settings
        self.outputs = outputs
        self.journal = journal
    }

    /// - Parameter isWanted: asked again and again; planning ends with an error once it says no.
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs, or `TesseraError` for the output.
    func plan(_ submission: Submit, owner: String, isWanted: @escaping @Sendable () -> Bool = { true }) throws -> PlannedJob {
        var request = request(submission)
        let isOverdue = request.isOverdue, output: String
        request.isOverdue = { isOverdue() || !isWanted() }
        do throws(TesseraError) {
            output = try outputs.resolve(submission.output, workingDirectory: submission.workingDirectory)
        } catch {
            throw Problems([error] + Planner.problems(of: request))
        }
        let plan = try Planner.plan(request)
        try checkInputs(of: plan, beside: output, isReplaced: submission.options.overwrite)
        return PlannedJob(
            submission: submission, output: output, stages: try stages(plan, request),
            key: JobKey(try Self.key(of: submission, plan: plan.digest, output: output), owner: owner))
    }

    /// An output lies in none of its inputs, whose readers would find it there, and one that is replaced does not hold what it is
    /// made of.
    private func checkInputs(of plan: Plan, beside output: String, isReplaced: Bool) throws(TesseraError) {
        for input in plan.inputs {
            for path in input.paths.compactMap(settings.inputRoots.locate) {
                guard !isReplaced || FilePath.relative(path, to: output) == nil else {
                    throw TesseraError(
                        .cannotCreate, "holds the input '\(input.reference)', which would be lost", file: output,
                        advice: "choose another output")
                }
                // A model may also be a single file in a directory of others.
                let name = FilePath.components(of: path).last ?? path, directory = FilePath.parent(of: path)
                guard input.reference.contains(name) || FilePath.relative(output, to: directory) == nil else {
                    throw TesseraError(
                        .notAllowed, "the output would lie in the input '\(input.reference)'", file: output,
                        advice: "choose a directory beside it")
                }
            }
        }
    }

    private func request(_ submission: Submit) -> PlanRequest {
        let options = submission.options, time = time, readsWhole = options.fullInputs == true
        let end = time.now() + (readsWhole ? settings.readingLimit : settings.planningLimit)
        var request = PlanRequest(
            recipe: submission.recipe, recipeName: submission.recipeName, workingDirectory: submission.workingDirectory,
            roots: settings.inputRoots, maxPartBytes: options.maxPartBytes, shardBytes: options.shardBytes,
            strict: options.strict, seed: options.seed ?? 0)
        request.recipeOrigins = submission.recipeOrigins
        request.writesMergekitConfig = options.mergekitConfig == true
        request.writesModelCard = options.modelCard != false
        request.isOverdue = { time.now() > end }
        request.pinning = InputPinning(digests: settings.digests, readsWhole: readsWhole)
        return request
    }

    /// - Parameter request: without pinned files for a job's first plan.
    private func stages(
        _ plan: Plan, _ request: PlanRequest, after statistics: [[ExactText: TensorStatistics]] = []
    ) throws -> PlannedStages {
        try settings.checkMemory(plan)
        var request = request
        request.pinnedFiles = request.pinnedFiles ?? plan.pinnedFiles
        return PlannedStages(plan, request: request, after: statistics)
    }

    /// Jobs are the same if they make the same output in the same place with the same options, unless the submitter says
    /// otherwise. Whether an earlier output may be replaced is no part of what is made.
    private static func key(of submission: Submit, plan: Digest, output: String) throws -> String {
        if let key = submission.idempotencyKey { return "key \(key)" }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        var options = submission.options
        options.overwrite = false
        let bytes = try encoder.encode(options)
        return "plan \(try Digest.sha256(of: Array("\(plan) \(output) ".utf8) + bytes))"
    }

    /// Begins the output.
    func begin(_ planned: PlannedJob, id: JobID) throws -> Job {
        let options = planned.submission.options
        let output = try outputs.begin(planned.output, job: "\(id)", overwrite: options.overwrite)
        do {
            try layOut(planned.stages, of: id, in: output)
        } catch {
            output.abort()
            throw error
        }
        return Job(planned.stages, output: output, options: options, audit: audit(of: id, options))
    }

    private func audit(of id: JobID, _ options: JobOptions) -> Audit? {
        let share = options.audit ?? settings.auditShare
        return share > 0 ? Audit(id, share: share) : nil
    }

    /// The plan that follows from the statistics of the job's shards, all of which are committed.
    func next(after job: Job, id: JobID) throws -> PlannedStages? {
        guard job.plan.hasMoreStages else { return nil }
        let statistics = try job.allStatistics()
        var request = job.request
        let time = time, end = time.now() + settings.planningLimit
        request.isOverdue = { time.now() > end }
        let stages = try stages(Planner.plan(request, after: statistics), request, after: statistics)
        try layOut(stages, of: id, in: job.output)
        return stages
    }

    /// An analysis stage has no parts: its output is laid out by a later plan.
    private func layOut(_ stages: PlannedStages, of id: JobID, in output: any OutputTransaction) throws {
        try output.layOut(stages.plan.parts, adopting: adopted(stages.plan))
        try journal.add(stages.journaled, of: id)
    }

    private func adopted(_ plan: Plan) -> [AdoptedFile] {
        plan.reused.map {
            AdoptedFile(path: $0.path, in: settings.inputRoots.files, size: $0.part.size, name: $0.part.file)
        }
    }

    // MARK: Restarts

    /// Whether the job's output has its name, although the coordinator stopped before it said so.
    func isPublished(_ id: JobID, output: String) -> Bool {
        // Alone what every version wrote in the same way.
        struct Owner: Decodable { let job: String }
        guard let bytes = try? outputs.file(RunReport.fileName, of: output),
            let report = try? JSONDecoder().decode(Owner.self, from: Data(bytes))
        else { return false }
        return report.job == id.description
    }

    /// Removes what is left of the unfinished output of a job that is over.
    func discard(_ id: JobID, output: String) { outputs.discard(output, job: "\(id)") }

    /// Goes on with a job where an earlier coordinator stopped. Where its output is not there any more, the job begins again.
    ///
    /// - Throws: as `plan`; `badData` naming the file when an input is another than it was.
    func resume(_ journaled: JournaledJob) throws -> ResumedJob {
        if let resumed = try takeUp(journaled) { return resumed }
        outputs.discard(journaled.output, job: "\(journaled.id)")
        try journal.restart(journaled.id)
        let planned = try plan(journaled.submission, owner: journaled.owner)
        return ResumedJob(job: try begin(planned, id: journaled.id), plans: [planned.stages], kept: [])
    }

    /// - Returns: `nil` when the output is not as the journal has it.
    private func takeUp(_ journaled: JournaledJob) throws -> ResumedJob? {
        guard !journaled.plans.isEmpty else { return nil }
        let plans = try replan(journaled)
        guard let output = try output(of: journaled, plans) else { return nil }
        let options = journaled.submission.options
        var job = Job(plans[0], output: output, options: options, audit: audit(of: journaled.id, options))
        for stages in plans.dropFirst() { job.take(stages) }
        try job.keep(journaled.shards)
        let count = plans.reduce(0) { $0 + $1.shards.count }
        let kept = journaled.shards.filter { $0.attempt.shard < count }
        return ResumedJob(
            job: job, plans: plans, kept: kept.map { KeptShard(shard: $0.attempt.shard, worker: $0.worker, time: $0.time) })
    }

    /// The output as the journal has it. One that is not there, and would hold nothing yet, is laid out again: what analysis
    /// stages found out is in the journal alone.
    ///
    /// - Returns: `nil` when bytes of committed shards are lost.
    private func output(of journaled: JournaledJob, _ plans: [PlannedStages]) throws -> (any OutputTransaction)? {
        guard let last = plans.last?.plan else { return nil }
        let id = "\(journaled.id)", overwrite = journaled.submission.options.overwrite
        if let output = try outputs.resume(journaled.output, job: id, overwrite: overwrite) {
            do throws(TesseraError) {
                try output.reopen(last.parts, adopting: adopted(last))
                return output
            } catch  where error.code == .io || error.code == .notAllowed {
                // The disk does not take bytes for now; what it holds stays.
                throw error
            } catch {}
        }
        let earlier = plans.dropLast().reduce(0) { $0 + $1.shards.count }
        guard last.parts.isEmpty || journaled.shards.allSatisfy({ $0.attempt.shard < earlier }) else { return nil }
        outputs.discard(journaled.output, job: id)
        let output = try outputs.begin(journaled.output, job: id, overwrite: overwrite)
        do throws(TesseraError) {
            try output.layOut(last.parts, adopting: adopted(last))
        } catch {
            output.abort()
            throw error
        }
        return output
    }

    /// Makes the job's plans again, each from the statistics of the shards before it.
    private func replan(_ journaled: JournaledJob) throws -> [PlannedStages] {
        var request = request(journaled.submission), plans: [PlannedStages] = []
        request.pinnedFiles = journaled.plans.first?.pinnedFiles
        var statistics: [[ExactText: TensorStatistics]] = [], first = 0
        for expected in journaled.plans {
            if let last = plans.last {
                let kept = journaled.shards.filter { (first..<first + last.shards.count).contains($0.attempt.shard) }
                statistics.append(try JobPlan.statistics(of: last.shards, kept.map { ($0.attempt.shard - first, $0.result) }))
                first += last.shards.count
            }
            let plan = try Planner.plan(request, after: statistics)
            guard plan.digest == expected.digest else {
                throw TesseraError(
                    .badData, "the plan is not the one that the job was begun with, although its inputs are the same",
                    file: journaled.submission.recipeName,
                    advice: "this version of Tessera plans the recipe in another way; submit the job again")
            }
            plans.append(try stages(plan, request, after: statistics))
        }
        return plans
    }
}

extension Plan {
    var parts: [OutputPart] {
        layout.parts.map { OutputPart(name: $0.fileName, size: $0.fileSize, header: $0.header) }
    }
}
