package import Core
import Logging
package import Protocol
package import Work

/// What workers say and what becomes of them.
extension JobManager {
    /// - Parameter send: takes messages for the worker; must neither wait nor encode.
    package func attach(_ description: WorkerDescription, send: @escaping @Sendable (Message) -> Void) -> WorkerID {
        let (id, effects) = state.attach(description, at: time.now(), send: send)
        perform(effects)
        return id
    }

    package func drain(_ worker: WorkerID) { perform(state.drain(worker, at: time.now())) }

    /// Tells the workers that nothing is left to do.
    func dismissWorkers() {
        for worker in state.workers.members.values { worker.send(.goodbye("the coordinator shut down")) }
    }

    /// - Parameter isLoss: whether the worker's process is taken to have ended, which may be the fault of its shards.
    /// - Parameter isOrderly: whether it said goodbye.
    package func detach(_ worker: WorkerID, reason: String, isLoss: Bool = true, isOrderly: Bool = false) {
        perform(state.detach(worker, reason: reason, isLoss: isLoss, isOrderly: isOrderly, at: time.now()))
        let jobs = state.jobs.active.count
        if state.workers.emptySince != nil, jobs > 0 {
            log.warning("no worker is left: jobs wait until one connects", metadata: ["jobs": .stringConvertible(jobs)])
        }
    }

    /// The coordinator shuts down and has closed the worker's connection, which is nobody's trouble.
    package func dismissed(_ worker: WorkerID) {
        perform(state.detach(worker, reason: "the coordinator ended", isLoss: false, isOrderly: true, at: time.now()))
    }

    package func heartbeat(_ worker: WorkerID, _ leases: [LeaseProgress], waiting: Set<Attempt> = []) {
        perform(state.heartbeat(worker, leases, waiting: waiting, at: time.now()))
    }

    /// Bytes of the worker have arrived, or have not for long.
    func heard(_ worker: WorkerID, isSilent: Bool) { perform(state.heard(worker, isSilent: isSilent, at: time.now())) }

    /// Where a block belongs, or `nil` when the attempt that it comes from is no longer wanted.
    package func target(
        of attempt: Attempt, from worker: WorkerID, tensor: Int, offset: Int, byteCount: Int
    ) throws(TesseraError) -> BlockTarget? {
        try state.target(of: attempt, from: worker, tensor: tensor, offset: offset, byteCount: byteCount)
    }

    func stored(_ digests: [BlockPosition: Digest], of attempt: Attempt) { state.stored(digests, of: attempt) }

    package func finished(_ done: ShardDone, by worker: WorkerID) { perform(state.finished(done, by: worker, at: time.now())) }

    package func failed(_ attempt: Attempt, by worker: WorkerID, error: TesseraError) {
        perform(state.failed(attempt, by: worker, error, at: time.now()))
    }

    /// The worker sent what none may send, and is about to be sent away: all that it works on counts as failed, lest it be given
    /// the same again as soon as it is back.
    func violated(_ worker: WorkerID, _ error: TesseraError) {
        for attempt in state.scheduler.leases(of: worker) { failed(attempt, by: worker, error: error) }
    }

    /// Whether an input file belongs to a job that is being worked on: no other file is handed out.
    package func needs(_ file: InputFile) -> Bool {
        let file = file.unpinned
        return state.jobs.active.contains { id in
            state.jobs[id]?.isRunning == true && state.jobs[id]?.job?.files.contains(file) == true
        }
    }
}
