import Core
import Engine
import Protocol
import Synchronization

/// Follows a job over the coordinator's restarts, until the job ends or a signal ends the command.
struct JobFollower {
    private let style: ProgressStyle

    init(_ style: ProgressStyle) { self.style = style }

    /// - Parameters:
    ///   - words: the options that name the coordinator, for a command that the user can paste.
    ///   - find: the job to follow, asked on each new connection with what it answered before; `nil` follows none. Asking again
    ///     is safe: the same submission is the same job.
    /// - Returns: the job once it has ended, or `nil` where none is followed.
    func run(
        at address: CoordinatorAddress, named words: [String],
        _ find: @escaping @Sendable (inout CoordinatorClient, _ known: JobID?) async throws -> JobID?
    ) async throws -> JobStatus? {
        let followed = Mutex<JobID?>(nil), isPaused = Mutex(false), style = style
        do {
            return try await cancelledBySignals {
                try await CoordinatorClient.reconnecting(to: address, remark: Terminal.remark) { client in
                    guard let job = try await find(&client, followed.withLock { $0 }) else { return nil }
                    followed.withLock { $0 = job }
                    return try await Self.follow(job, at: address, style: style, &client) { job in
                        isPaused.withLock { $0 = job.state == .paused }
                    }
                }
            }
        } catch let error as CancellationError {
            if let job = followed.withLock({ $0 }) {
                let words = (["\(job)"] + words).joined(separator: " ")
                let state = isPaused.withLock { $0 } ? "is still paused" : "goes on"
                Terminal.remark("the job \(state)\nfollow it: tessera wait \(words)\ncancel it: tessera cancel \(words)")
            }
            throw error
        }
    }

    private static func follow(
        _ id: JobID, at address: CoordinatorAddress, style: ProgressStyle, _ client: inout CoordinatorClient,
        note: (JobStatus) -> Void
    ) async throws -> JobStatus {
        var display = ProgressDisplay(style), remarks = JobRemarks(hint: WorkerHint(address))
        let time = TimeSource.system
        var pause = Duration.zero
        defer { display.finish() }
        while true {
            let start = time.now(), status = try await client.progress(of: id, after: pause)
            let late = time.now() - start - pause
            for remark in remarks.about(status) { Terminal.remark(remark) }
            display.show(status)
            status.jobs.first.map(note)
            if let job = status.jobs.first, job.state.isEnd { return job }
            // Answered at once when the job ends. A busy coordinator is asked less often, and none before the pause is over.
            pause = ProgressDisplay.interval
            try await Task.sleep(for: max(.zero, late < .zero ? .zero - late : late * 9 - pause))
        }
    }
}

/// What a user who follows a job is told once, when it begins.
struct JobRemarks {
    private let hint: WorkerHint
    private var isPaused = false
    private var lacksWorkers = false

    init(hint: WorkerHint) { self.hint = hint }

    mutating func about(_ status: Status) -> [String] {
        guard let job = status.jobs.first else { return [] }
        var remarks: [String] = []
        if (job.state == .paused) != isPaused {
            isPaused.toggle()
            remarks.append(isPaused ? "the job is paused: \(job.error?.description ?? "")" : "the job goes on")
        }
        let lacks = job.state == .running && status.workers.isEmpty
        if lacks != lacksWorkers {
            lacksWorkers = lacks
            if lacks { remarks.append("no worker is connected, so the job waits; \(hint.text)") }
        }
        return remarks
    }
}

/// How to start a worker for a coordinator.
struct WorkerHint {
    /// Where workers connect to.
    private let coordinator: HostPort
    /// Workers then have certificates or tokens of their own.
    private let usesTLS: Bool

    init(coordinator: HostPort, usesTLS: Bool) {
        self.coordinator = coordinator
        self.usesTLS = usesTLS
    }

    init(_ address: CoordinatorAddress) { self.init(coordinator: address.address, usesTLS: address.tls != nil) }

    var text: String {
        "start one: tessera worker --coordinator \(coordinator)"
            + (usesTLS ? ", with --tls-ca or --tls-pin and a worker's own certificate or token" : "")
    }
}
