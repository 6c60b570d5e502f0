import Operators
import Planning
package import Protocol

extension JobManager {
    /// All jobs and workers, or one job with its shards; `nil` when there is no such job.
    package func status(_ request: StatusRequest) -> Status? {
        guard let id = request.job else { return Status(jobs: order.compactMap { status(of: $0) }, workers: workerStatus()) }
        return status(of: id, withShards: true).map { Status(jobs: [$0], workers: workerStatus()) }
    }

    func status(of id: JobID, withShards: Bool = false) -> JobStatus? {
        guard let job = jobs[id] else { return nil }
        let views = scheduler.shards(of: id)
        let details = views.enumerated().map { index, view in
            let planned = job.shards[index]
            let names =
                view.state == .committed
                ? [job.worker(of: index)].compactMap { $0 } : view.workers.compactMap { workers[$0]?.description.name }
            return ShardStatus(
                index: index, label: planned.label, state: view.state, workers: names, attempts: view.attempts,
                bytesDone: view.state == .committed
                    ? planned.progressByteCount : min(max(0, view.bytesDone), planned.progressByteCount),
                bytesTotal: planned.progressByteCount)
        }
        return JobStatus(
            id: id, state: job.state, method: job.plan.method, output: job.output, plan: job.plan.digest,
            shards: JobStatus.Shards(
                total: details.count, pending: details.count { $0.state == .pending },
                leased: details.count { $0.state == .leased },
                committed: details.count { $0.state == .committed }),
            bytesDone: details.reduce(0) { $0 + $1.bytesDone }, bytesTotal: details.reduce(0) { $0 + $1.bytesTotal },
            bytesOutput: job.shards.reduce(0) { $0 + $1.byteCount }, bytesInput: job.plan.inputs.reduce(0) { $0 + $1.byteCount },
            attempts: job.attempts, submittedAt: job.submittedAt,
            seconds: ((job.endedAt ?? now) - job.startedAt).seconds, error: job.error, blockedReason: blockedReason(to: id),
            shardDetails: withShards ? details : nil)
    }

    private func blockedReason(to id: JobID) -> String? {
        guard let shard = scheduler.oversizedShard(of: id) else { return nil }
        let missing = workers.values.map(\.description).map { worker in
            (worker, bytes: shard.memory.byteCount(threads: worker.threads))
        }
        guard let (worker, bytes) = missing.min(by: { $0.bytes - $0.0.tensorMemory < $1.bytes - $1.0.tensorMemory }) else {
            return nil
        }
        let needed = (bytes + (1 << 20) - 1) >> 20, threads = worker.threads == 1 ? "one thread" : "\(worker.threads) threads"
        return """
            waits for a worker with more memory: \(shard.label) needs \(needed) MiB beside the buffers of \(threads), \(worker.name) has \
            \(worker.tensorMemory >> 20) MiB; start one with more --memory, or with fewer --threads
            """
    }

    private func workerStatus() -> [WorkerStatus] {
        workers.sorted { $0.key < $1.key }.map { id, worker in
            let leases = scheduler.leaseCount(of: id)
            return WorkerStatus(
                id: id, name: worker.description.name, address: worker.description.address, build: worker.description.build,
                state: worker.isDraining ? .draining : leases > 0 ? .busy : .idle, threads: worker.description.threads,
                memory: worker.description.memory, leases: leases, shardsDone: worker.shardsDone, bytesDone: worker.bytesDone,
                bytesDirect: worker.bytesDirect,
                secondsConnected: (now - worker.since).seconds)
        }
    }
}
