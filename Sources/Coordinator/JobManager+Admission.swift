import Core

/// Which jobs may begin beside those that there are.
extension JobManager {
    /// - Throws: `temporary` when another job makes the same output: only one of them could have it in the end.
    func checkOutput(of planned: PlannedJob) throws(TesseraError) {
        let other = state.jobs.active.first { id in
            guard let record = state.jobs[id], record.output == planned.output else { return false }
            return record.isRunning || record.isPublishing
        }
        guard other != nil || beginning.values.contains(where: { $0.output == planned.output }) else { return }
        throw TesseraError(
            .temporary, "\(other.map { "the job \($0)" } ?? "another job") makes this output already", file: planned.output,
            advice: "wait for that job, cancel it, or choose another path")
    }

    /// - Throws: `temporary` when there are as many jobs as there may be.
    func checkJobs(of owner: String) throws(TesseraError) {
        let all = state.jobs.active.count + beginning.count
        let running = state.jobs.active.count(where: { state.jobs[$0]?.key.owner == owner })
        let own = running + beginning.keys.count(where: { $0.owner == owner })
        guard all < settings.limits.jobs, own < settings.limits.jobsOfOwner else {
            throw TesseraError(
                .temporary, "'\(owner)' has \(own) jobs that have not ended, of \(all) in all, and there may be no more",
                advice: "submit the job again when some have ended, or cancel some")
        }
    }
}
