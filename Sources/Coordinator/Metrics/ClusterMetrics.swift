import Core
import Protocol

/// What the coordinator tells Prometheus, read off its state at one moment. Labels take values from closed sets alone, so there
/// are as many time series for a thousand jobs and workers as for one.
struct ClusterMetrics: Sendable {
    let build: String
    let counters: ClusterCounters
    let journal: JournalCounters
    let leasesEnded: Scheduler.LeaseCounts
    /// By their states, and of running jobs that wait by what they do.
    private(set) var jobs: [String: Int] = [:]
    private(set) var shards = JobStatus.Shards(total: 0, pending: 0, leased: 0, committed: 0)
    private(set) var bytesLeft = 0
    private(set) var workers: [WorkerStatus.State: Int] = [:]
    private(set) var threads = 0
    private(set) var memory = 0
    private(set) var strikes = 0
    private(set) var resting = 0
    let hostsAside: Int
    /// To the job port.
    let connections: Int

    init(_ cluster: ClusterState, journal: JournalCounters, connections: Int, build: String) {
        self.build = build
        self.journal = journal
        self.connections = connections
        counters = cluster.counters
        leasesEnded = cluster.scheduler.leaseCounts
        hostsAside = cluster.workers.distrusted.count
        let waits = JobWaits(cluster)
        for id in cluster.jobs.active {
            guard let record = cluster.jobs[id] else { continue }
            jobs[waits.wait(of: record)?.activity.rawValue ?? record.state.rawValue, default: 0] += 1
            let found = record.progress.shards
            shards.pending += found.pending
            shards.leased += found.leased
            shards.committed += found.committed
            bytesLeft += record.progress.bytesTotal - record.progress.bytesDone
        }
        for (id, member) in cluster.workers.members {
            let state: WorkerStatus.State =
                member.isDraining ? .draining : cluster.scheduler.leaseCount(of: id) > 0 ? .busy : .idle
            workers[state, default: 0] += 1
            threads += member.description.threads
            memory += member.description.memory
            let found = cluster.scheduler.strikes(of: id)
            strikes += found.count
            if found.restsUntil != nil { resting += 1 }
        }
    }

    /// - Parameter eventReaders: who follow the status port's event stream.
    func text(process: ProcessUsage?, eventReaders: Int) -> String {
        var text = MetricsText()
        text.add("tessera_build_info", .gauge, "The coordinator's version; always 1.", by: "version", [(build, 1)])
        addJobs(to: &text)
        addAttempts(to: &text)
        addWorkers(to: &text)
        text.add("tessera_journal_commit_duration_seconds", "Transactions of the journal that commit shards.", journal.seconds)
        text.add(
            "tessera_journal_failures_total", .counter, "Transactions of the journal that failed.", Double(journal.failures))
        text.add("tessera_connections", .gauge, "Open connections to the job port.", Double(connections))
        text.add("tessera_event_readers", .gauge, "Open event streams of the status port.", Double(eventReaders))
        if let process { Self.add(process, to: &text) }
        return text.text
    }

    private static let jobStates =
        [JobState.running.rawValue] + JobActivity.allCases.map(\.rawValue)
        + [JobState.paused.rawValue, JobState.publishing.rawValue]

    private func addJobs(to text: inout MetricsText) {
        text.add(
            "tessera_jobs", .gauge, "Jobs that have not ended, by state.", by: "state",
            Self.jobStates.map { ($0, Double(jobs[$0] ?? 0)) })
        text.add("tessera_jobs_added_total", .counter, "Jobs that were accepted or resumed.", Double(counters.jobsAdded))
        text.add(
            "tessera_jobs_ended_total", .counter, "Jobs that have ended, by state.", by: "state",
            [JobState.done, .failed, .cancelled].map { ($0.rawValue, Double(counters.jobsEnded[$0] ?? 0)) })
        text.add(
            "tessera_job_pauses_total", .counter,
            "How often a job was paused: output or journal could not be written, or an input was not there after a restart.",
            Double(counters.pauses))
        text.add(
            "tessera_shards", .gauge, "Shards of jobs that have not ended, by state.", by: "state",
            [("pending", Double(shards.pending)), ("leased", Double(shards.leased)), ("committed", Double(shards.committed))])
        text.add(
            "tessera_left_bytes", .gauge, "Bytes that jobs which have not ended have still to write or read.", Double(bytesLeft))
    }

    private func addAttempts(to text: inout MetricsText) {
        func byDelivery(_ counts: [Delivery: Int]) -> [(String, Double)] {
            [("direct", Double(counts[.direct] ?? 0)), ("relayed", Double(counts[.relayed] ?? 0))]
        }
        text.add(
            "tessera_committed_shards_total", .counter, "Committed shards, by the way their blocks took.", by: "delivery",
            byDelivery(counters.committed))
        text.add(
            "tessera_committed_bytes_total", .counter, "Output bytes of committed shards, by the way they took.", by: "delivery",
            byDelivery(counters.bytesCommitted))
        text.add("tessera_shard_duration_seconds", "Committed shards, from lease to commit.", counters.shardSeconds)
        text.add("tessera_leases_total", .counter, "Leases granted.", Double(counters.leases))
        text.add(
            "tessera_retries_total", .counter, "Leases granted for shards that had a lease before.", Double(counters.retries))
        text.add(
            "tessera_backup_leases_total", .counter, "Second leases granted for shards that take long.",
            Double(leasesEnded.backups))
        text.add("tessera_leases_expired_total", .counter, "Leases that nobody renewed in time.", Double(leasesEnded.expired))
        text.add(
            "tessera_leases_stalled_total", .counter, "Leases taken back for lack of progress.", Double(leasesEnded.stalled))
        text.add(
            "tessera_leases_revoked_total", .counter, "Leases taken back from no fault of the attempt.", Double(counters.revoked))
        text.add(
            "tessera_attempts_failed_total", .counter, "Failed attempts at shards, by the error's code.", by: "code",
            TesseraError.Code.allCases.map { ($0.rawValue, Double(counters.failures[$0] ?? 0)) })
        text.add("tessera_stale_results_total", .counter, "Results that came too late.", Double(counters.stale))
    }

    private func addWorkers(to text: inout MetricsText) {
        text.add(
            "tessera_workers", .gauge, "Connected workers, by state.", by: "state",
            [WorkerStatus.State.idle, .busy, .draining].map { ($0.rawValue, Double(workers[$0] ?? 0)) })
        text.add("tessera_worker_threads", .gauge, "Shards that the connected workers can work on at a time.", Double(threads))
        text.add("tessera_worker_memory_bytes", .gauge, "Memory limits of the connected workers, added up.", Double(memory))
        text.add(
            "tessera_worker_strikes", .gauge, "Attempts that connected workers failed since they last finished one, added up.",
            Double(strikes))
        text.add("tessera_workers_resting", .gauge, "Workers that get no shards for a while after failures.", Double(resting))
        text.add(
            "tessera_hosts_put_aside", .gauge, "Hosts that get no shards because they compute wrongly.", Double(hostsAside))
        text.add("tessera_workers_joined_total", .counter, "Workers that joined.", Double(counters.workersJoined))
        text.add("tessera_workers_left_total", .counter, "Workers that left or were lost.", Double(counters.workersLeft))
    }

    /// The names that Prometheus' own clients use.
    private static func add(_ process: ProcessUsage, to text: inout MetricsText) {
        text.add("process_cpu_seconds_total", .counter, "User and system CPU time of the coordinator.", process.cpuSeconds)
        text.add("process_resident_memory_bytes", .gauge, "Resident memory.", Double(process.residentMemory))
        text.add("process_virtual_memory_bytes", .gauge, "Virtual memory.", Double(process.virtualMemory))
        text.add("process_open_fds", .gauge, "Open file descriptors.", Double(process.openDescriptors))
        text.add("process_max_fds", .gauge, "File descriptors that the process may have.", Double(process.descriptorLimit))
        text.add("process_start_time_seconds", .gauge, "When the process started, in seconds since 1970.", process.startedAt)
    }
}
