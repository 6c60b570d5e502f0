import Core
import Planning
package import Protocol
import Synchronization
import Work

/// What may be known of jobs and workers, and by whom.
extension JobManager {
    /// Returns when the job has ended, or after the time.
    func end(of id: JobID, within limit: Duration) async {
        guard limit > .zero else { return }
        let time = time
        await withTaskGroup(of: Void.self) { group in
            group.addTask { _ = await self.end(of: id) }
            group.addTask { try? await time.sleep(limit) }
            await group.next()
            group.cancelAll()
        }
    }

    /// A page of jobs, of workers, or of one job's shards, as far as `peer` may see them; `nil` when there is no such job.
    package func status(_ request: StatusRequest, for peer: PeerIdentity) -> Status? {
        var status = StatusPages(state, at: time.now(), for: peer).answer(request)
        if !takesJobs { status?.draining = true }
        return status
    }

    /// Whether some jobs have not ended.
    var hasJobs: Bool { !state.jobs.active.isEmpty }

    /// What Prometheus is told.
    func metrics() -> ClusterMetrics {
        ClusterMetrics(state, journal: journalCounters, connections: connections.withLock { $0 }, build: settings.build)
    }

    /// The jobs and workers that have changed, for a reader of the event stream.
    func news(
        of changes: FeedChanges, refreshes: Bool, for peer: PeerIdentity
    ) -> Status {
        let pages = StatusPages(state, at: time.now(), for: peer)
        var status = Status(
            jobs: pages.jobs(changes.jobs, refreshes: refreshes), workers: pages.workers(changes.workers, refreshes: refreshes))
        status.lostWorkers = pages.lostWorkers
        if !takesJobs { status.draining = true }
        return status
    }

    /// Some shards of a job, and all that the reader has not heard of; `nil` where it may not see them.
    func shardNews(
        of id: JobID, _ shards: [Int], rowsTold: Int, namesTold: Int, for peer: PeerIdentity
    ) -> ShardNews? {
        StatusPages(state, at: time.now(), for: peer).shards(shards, of: id, rowsTold: rowsTold, namesTold: namesTold)
    }

    /// The job's last plan; `nil` where there is none any more, or `peer` may not see it.
    func plan(of id: JobID, for peer: PeerIdentity) -> PlanDescription? {
        guard let record = state.jobs[id], peer.maySeeJobs(of: record.key.owner) else { return nil }
        return record.plan?.description
    }

    /// Why there is no plan, or no shards, of a job that `peer` may see; `nil` for other jobs.
    func lack(of id: JobID, for peer: PeerIdentity) -> String? {
        guard let record = state.jobs[id], peer.maySeeJobs(of: record.key.owner) else { return nil }
        return record.lack
    }

    /// What the status port tells of the coordinator itself.
    nonisolated var about: CoordinatorDocument {
        CoordinatorDocument(version: settings.build, jobPort: jobPort.withLock { $0 })
    }

    /// One shard of a job; `nil` where there is none any more, or `peer` may not see it.
    func shard(_ index: Int, of id: JobID, for peer: PeerIdentity) -> ShardDocument? {
        guard let record = state.jobs[id], peer.maySeeJobs(of: record.key.owner), let status = record.progress.row(index) else {
            return nil
        }
        return ShardDocument(status: status, tensorNames: record.job?.shard(index)?.tensors.map(\.name))
    }
}
