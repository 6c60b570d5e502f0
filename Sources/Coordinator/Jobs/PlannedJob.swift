import Core
package import Journal
import Planning
package import Protocol
import Work

/// A submission that makes sense, before anything is created.
package struct PlannedJob: Sendable {
    package let submission: Submit
    /// As the output store names the output.
    let output: String
    let stages: PlannedStages
    let key: JobKey

    /// Whether an earlier process kept this job.
    package func isSame(as job: JournaledJob) -> Bool { key == JobKey(job.key, owner: job.owner) }

    /// What tells the job from one that an earlier process kept for the same output.
    package enum Difference: Sendable, Equatable {
        case recipe, options
        /// The recipe's, of which this file is another than it was; `nil` where no file is known to be.
        case inputs(String?)
    }

    package func difference(from job: JournaledJob) -> Difference {
        if submission.recipe != job.submission.recipe { return .recipe }
        var options = submission.options
        options.overwrite = job.submission.options.overwrite
        if options != job.submission.options { return .options }
        let now = stages.plan.pinnedFiles, then = job.plans.first?.pinnedFiles ?? [:]
        let changed = then.filter { now[$0.key]?.isSame(as: $0.value) != true }.map(\.key)
        return .inputs(changed.sortedByBytes().first)
    }
}
