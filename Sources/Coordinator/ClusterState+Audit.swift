import Core
import Protocol

extension ClusterState {
    /// Goes on with a job all of whose shards are committed: with what is to be done again, if anything is, else with its next
    /// plan, else with its end.
    mutating func goOn(_ id: JobID, at now: Duration) {
        let hosts = Set(workers.trusted.map(\.description.host))
        let places = workers.members.values.map { ($0.description.name, $0.description.host) }
        let step = jobs[id]?.job?.auditNext(
            hosts: hosts, distrusted: Set(workers.distrusted.keys), places: Dictionary(places, uniquingKeysWith: min))
        switch step {
        case .again(let items, let culprits):
            for culprit in culprits { putAside(culprit, in: id, at: now) }
            guard let shards = jobs[id]?.job?.costs(of: items) else { return }
            happened(.repeated(id, shards.map(\.summary)), at: now)
            feed(.stagesAdded(id, stages: [shards.map(\.cost)], hasMoreStages: true), at: now)
        case .stuck(let error):
            feed(.jobCancelled(id), at: now)
            end(id, as: .failed, error)
        case .over(let unaudited):
            if unaudited > 0 { happened(.unaudited(id, shards: unaudited), at: now) }
            guard jobs[id]?.job?.isAnalysing == true else {
                return feed(.stagesAdded(id, stages: [], hasMoreStages: false), at: now)
            }
            effects.append(.start(.plan(id)))
        case nil: return
        }
    }

    /// Gives a host that computes wrongly no more shards, of any job.
    private mutating func putAside(_ culprit: Audit.Culprit, in job: JobID, at now: Duration) {
        let isMeant: (WorkerDescription) -> Bool = { description in
            // Of a result of an earlier coordinator, the worker's name alone is known.
            culprit.host.map { description.host == $0 } ?? (description.name == culprit.worker)
        }
        let hosts = Set(workers.members.values.map(\.description).filter(isMeant).map(\.host))
        for host in hosts.union([culprit.host].compactMap(\.self)).sorted() {
            workers.distrust(host, because: culprit.problem)
            happened(.putAside(job, host: host, worker: culprit.worker, reason: culprit.problem), at: now)
            for (worker, member) in workers.members.sorted(by: { $0.key < $1.key }) where member.description.host == host {
                feed(.workerDraining(worker), at: now)
            }
        }
    }
}
