package import ArgumentParser
import Coordinator
import Core
import Engine
import Planning
import Protocol

package struct RunCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Merge on this machine.",
        discussion: """
            Relative paths in the recipe start at the working directory. OUT appears only when it is complete. If the process is \
            interrupted or killed, the same command goes on where it was.
            """)

    @OptionGroup var job: JobArguments
    @OptionGroup var machine: MachineArguments
    @OptionGroup var signing: SigningArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws { try await run(discardsOtherWork: job.overwrite) }

    /// - Parameter discardsOtherWork: whether finished shards of another recipe for the same output may be removed.
    func run(discardsOtherWork: Bool) async throws {
        let submission = try job.submission()
        do {
            let (status, keptShards) = try await work(on: submission, discardsOtherWork: discardsOtherWork)
            try JobOutcome(status, keptShards: keptShards).report(json: job.json)
        } catch let interruption as RunInterruption {
            Terminal.remark(
                interruption.kept.map { kept in
                    "interrupted; \(kept.done)\nthe same command goes on with them\nto discard them: \(kept.discarding)"
                } ?? "interrupted; nothing was done yet, and nothing is kept")
            throw CancellationError()
        }
    }

    private func work(on submission: Submit, discardsOtherWork: Bool) async throws -> (JobStatus, keptShards: Int) {
        let (style, threads, memory, key) = (job.progress, machine.threads, machine.memory.bytes, try signing.key())
        return try await cancelledBySignals(onSignal: {
            Terminal.remark("stopping; finishing what is being written (again: stops at once)")
        }) {
            let state = try Self.state(of: submission)
            let local = LocalRun(
                threads: threads, memory: memory, signingKey: key, digests: cachedDigests(), state: state, log: quietLog)
            return try await local.run(submission, discardsOtherWork: discardsOtherWork) { manager, submitted in
                Terminal.warn(submitted.warnings ?? [])
                for remark in submitted.remarks { Terminal.remark(remark) }
                await watch(submitted.job, in: manager, style: style)
            }
        }
    }

    /// - Throws: what is wrong with the place for the output, together with what is wrong with the recipe.
    private static func state(of submission: Submit) throws -> RunState {
        do throws(TesseraError) {
            return try RunState(beside: submission.output, workingDirectory: submission.workingDirectory)
        } catch {
            guard error.code != .temporary else {
                throw TesseraError(
                    .temporary, "another 'tessera run' makes this output: \(error.problem)", file: submission.output,
                    advice: "wait for it, or choose another output")
            }
            var request = PlanRequest(
                recipe: submission.recipe, recipeName: submission.recipeName, workingDirectory: submission.workingDirectory,
                maxPartBytes: submission.options.maxPartBytes, strict: submission.options.strict)
            request.recipeOrigins = submission.recipeOrigins
            throw Problems([error] + Planner.problems(of: request))
        }
    }

    /// Shows progress until cancelled.
    private func watch(_ id: JobID, in manager: JobManager, style: ProgressStyle) async {
        var display = ProgressDisplay(style)
        let request = StatusRequest(job: id, running: true)
        while !Task.isCancelled {
            if let status = await manager.status(request, for: .local) { display.show(status) }
            try? await Task.sleep(for: ProgressDisplay.interval)
        }
        // The last line says how it ended.
        if let status = await manager.status(request, for: .local) { display.show(status) }
        display.finish()
    }
}

/// The outcome of a job, as shown to the user.
struct JobOutcome {
    private let job: JobStatus
    /// Made by an earlier process, in a time that the job's does not count.
    private let keptShards: Int

    init(_ job: JobStatus, keptShards: Int = 0) {
        self.job = job
        self.keptShards = keptShards
    }

    /// Prints the result, or throws the job's error.
    func report(json: Bool) throws {
        if json { try printJSON(JobDocument(job)) }
        guard job.state == .done else { throw job.error ?? TesseraError(.internal, "the job ended as \(job.state.rawValue)") }
        if !json { print(Terminal.outputWidth.map { sentence.wrapped(toColumns: $0).joined(separator: "\n") } ?? sentence) }
    }

    /// What came out, and how fast: the time in which the job waited is told apart.
    var sentence: String {
        let waited = min(job.secondsWaited ?? 0, job.seconds), isLong = waited >= 1
        let rate =
            keptShards > 0
            ? "\(keptShards) of \(job.shards.total) shards were made before, in time that is not counted"
            : (isLong ? "\(Quantity.seconds(waited)) of that waiting; " : "")
                + Quantity.rate(job.bytesInput + job.bytesOutput, job.seconds - (isLong ? waited : 0)) + " read and written"
        // A store whose vectors are all packed has no tensors of their own.
        let made = job.bytesOutput > 0 ? "\(Quantity.bytes(job.bytesOutput)) of tensors by" : "made by"
        return "\(job.output.printable): \(made) \(job.method.printable) in \(Quantity.seconds(job.seconds)) (\(rate)), "
            + "plan \(job.plan.hex.prefix(12))"
    }
}
