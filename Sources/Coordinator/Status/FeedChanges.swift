import Protocol

/// What has changed since a reader of the event stream was last told.
///
/// A value. Events say what has changed; the reader is told how that is by then. However slow the reader, no more is kept for it
/// than the numbers of what has changed.
struct FeedChanges {
    /// The job whose shards the reader wants.
    let watched: JobID?
    /// Whether the reader has to be told everything.
    private(set) var isFresh = true
    private(set) var jobs: Set<JobID> = []
    private(set) var workers: Set<Scheduler.WorkerID> = []
    private(set) var leftWorkers: Set<Scheduler.WorkerID> = []
    private(set) var shards: Set<Int> = []
    /// Whether shards of the watched job have changed that no event names one by one, or there are more of them.
    private(set) var changesAllShards = false

    init(watched: JobID?) { self.watched = watched }

    /// What there is to tell; nothing is left of it here.
    mutating func take() -> FeedChanges {
        defer {
            self = FeedChanges(watched: watched)
            isFresh = false
        }
        return self
    }

    var isEmpty: Bool {
        !isFresh && !changesAllShards && jobs.isEmpty && workers.isEmpty && leftWorkers.isEmpty && shards.isEmpty
    }

    mutating func note(_ event: JobEvent) {
        if let job = event.job { jobs.insert(job) }
        switch event {
        case .progressed(let attempt, _): note(attempt)
        case .leased(let attempt, let worker), .reported(let attempt, let worker), .committed(let attempt, let worker, _, _),
            .failed(let attempt, let worker, _), .revoked(let attempt, let worker, _, _), .stale(let attempt, let worker):
            note(attempt)
            workers.insert(worker.id)
        case .planned(let id, _), .repeated(let id, _), .kept(let id, _), .ended(let id, _, _):
            if id == watched { changesAllShards = true }
        case .workerJoined(let worker), .copyDiffers(_, let worker, _): workers.insert(worker.id)
        case .workerLeft(let worker, _, _):
            workers.remove(worker.id)
            leftWorkers.insert(worker.id)
        case .added, .paused, .resumed, .unaudited, .putAside: break
        }
    }

    private mutating func note(_ attempt: Attempt) { if attempt.job == watched { shards.insert(attempt.shard) } }
}
