package import Core
import Logging
package import Protocol

extension JobManager {
    /// Ends a job that is running, and returns when nothing of its output is left; one that has ended stays as it is.
    ///
    /// - Parameter reason: the client's, for the log. The job's error names the peer.
    /// - Throws: `inputMissing` when there is no such job, `notAllowed` for a job of others, `temporary` when its output is about
    ///   to appear.
    package func cancel(_ id: JobID, reason: String, by peer: PeerIdentity) async throws(TesseraError) {
        if let owner = state.jobs[id]?.key.owner, !peer.mayChangeJobs(of: owner) {
            throw TesseraError(
                .notAllowed, "the job \(id) belongs to '\(owner)', and \(peer.title) may not cancel it",
                advice: "ask its owner or an operator")
        }
        let phase = state.jobs[id]?.phase
        perform(try state.cancel(id, reason: "cancelled by \(peer.title)", at: time.now()))
        let about: Logger.Metadata = ["job": "\(id)", "by": "\(peer.name)", "reason": "\(reason)"]
        switch phase {
        case .running?, .publishing?: log.info("job to be cancelled", metadata: about)
        // Whoever asks for that has what they want.
        case .ended(.cancelled, _, _)?: log.info("the job was cancelled before", metadata: about)
        case .ended(let state, _, _)?:
            log.info("cancel refused: the job has ended", metadata: about.merging(["state": "\(state)"]) { $1 })
        // It is ending already.
        case .ending?, nil: break
        }
        await remove(id)
    }
}
