import Checkpoints
import Core
import Planning
import Protocol
import Work

/// Plans jobs and lays out their output. Waits for disks.
struct JobPlanner: Sendable {
    private let settings: JobManager.Settings
    private let outputs: any OutputStore

    init(settings: JobManager.Settings, outputs: any OutputStore) {
        self.settings = settings
        self.outputs = outputs
    }

    /// - Returns: the job, the name of its output, and what the scheduler has to know.
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs, or `TesseraError` for the output.
    func plan(_ submission: Submit, id: JobID) throws -> (job: Job, output: String, stages: PlannedStages) {
        let options = submission.options
        let name = try outputs.resolve(submission.output, workingDirectory: submission.workingDirectory)
        var request = PlanRequest(
            recipe: submission.recipe, recipeName: submission.recipeName, workingDirectory: submission.workingDirectory,
            roots: settings.inputRoots, maxPartBytes: options.maxPartBytes, shardBytes: options.shardBytes,
            strict: options.strict, seed: options.seed ?? 0)
        let plan = try Planner.plan(request)
        try settings.checkMemory(plan)
        let output = try outputs.begin(name, job: "\(id)", overwrite: options.overwrite)
        try layOut(plan, in: output)
        request.pinnedFiles = plan.pinnedFiles
        let stages = PlannedStages(plan, request: request)
        return (Job(stages, output: output, options: options), name, stages)
    }

    /// The plan that follows from the statistics of the job's shards, all of which are committed.
    func next(after job: Job) throws -> PlannedStages? {
        guard job.plan.hasMoreStages else { return nil }
        let statistics = try job.allStatistics()
        let plan = try Planner.plan(job.request, after: statistics)
        try settings.checkMemory(plan)
        try layOut(plan, in: job.output)
        return PlannedStages(plan, request: job.request, after: statistics)
    }

    /// An analysis stage has no parts: its output is laid out by a later plan.
    private func layOut(_ plan: Plan, in output: any OutputTransaction) throws(TesseraError) {
        try output.layOut(
            plan.layout.parts.map { OutputPart(name: $0.fileName, size: $0.fileSize, header: $0.header) },
            adopting: plan.reused.map {
                AdoptedFile(path: $0.path, in: settings.inputRoots.files, size: $0.part.size, name: $0.part.file)
            })
    }
}
