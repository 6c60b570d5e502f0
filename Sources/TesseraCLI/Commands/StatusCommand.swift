package import ArgumentParser
import Core
import Engine
import FoundationEssentials
import Glibc
import Protocol

package struct StatusCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show a coordinator's jobs, shards and workers.")

    @Argument(help: "A job's id, or a unique prefix of it, to show its shards.")
    var job: String?

    @OptionGroup var target: CoordinatorArguments

    @Flag(
        help: """
            Keep updating until the job ends, or q or Ctrl-C is pressed. Where stdout is no terminal: a dated line for each \
            change.
            """)
    var watch = false

    @Option(
        help: ArgumentHelp(
            """
            List so many jobs: those that are worked on, then the newest that have ended. The default is as many as the \
            terminal has lines for, and all of them in a pipe.
            """, valueName: "n"),
        transform: { text throws(OutOfRange) in
            guard let count = Int(text), count > 0 else { throw OutOfRange("a number above 0") }
            return count
        })
    var limit: Int?

    @Flag(help: "Print JSON; with --watch, an object a line for each change.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let (job, watch, json, limit) = (job, watch, json, limit)
        let address = try target.address()
        try await cancelledBySignals {
            if watch {
                let screen = Screen(), keys = Terminal.isTerminal(STDOUT_FILENO) && !json ? Keys() : nil
                defer { screen.finish() }
                // What was true of the lost coordinator is not shown as if it still were.
                let remark: @Sendable (String) -> Void = {
                    screen.clear()
                    Terminal.remark($0)
                }
                try await CoordinatorClient.reconnecting(to: address, remark: remark) { client in
                    let view = View(id: try await Self.find(job, &client), json: json, limit: limit, hint: WorkerHint(address))
                    try await Self.follow(view, on: screen, keys, &client)
                }
            } else {
                let status = try await CoordinatorClient.connect(to: address) { client in
                    if let id = try await Self.find(job, &client) { return try await client.status(of: id) }
                    return try await client.status()
                }
                if json { return try printJSON(StatusDocument(status.limited(to: limit))) }
                let isCut = job == nil && limit == nil && Terminal.isTerminal(STDOUT_FILENO)
                let text = StatusText(status.saying(WorkerHint(address)), limit: limit ?? .max)
                try Screen().show(
                    text.lines(width: Terminal.outputWidth, height: isCut ? Terminal.size(STDOUT_FILENO).height - 1 : nil),
                    redraws: false)
            }
        }
    }

    private static func find(_ job: String?, _ client: inout CoordinatorClient) async throws -> JobID? {
        guard let job else { return nil }
        return try await client.find(job)
    }

    /// What is watched, and how.
    private struct View {
        /// `nil` for all jobs.
        let id: JobID?
        let json: Bool
        let limit: Int?
        let hint: WorkerHint
    }

    /// Shows each change until the job has ended, if there is one, or the user has seen enough.
    private static func follow(
        _ watched: View, on screen: Screen, _ keys: Keys?, _ client: inout CoordinatorClient
    ) async throws {
        var view = JobView(), changes = StatusChanges(), log = StatusLog()
        let isLive = Terminal.isTerminal(STDOUT_FILENO) && !watched.json, time = TimeSource.system
        while true {
            let start = time.now()
            let found = if let id = watched.id { try await client.progress(of: id) } else { try await client.status() }
            let cost = time.now() - start, hasEnded = watched.id != nil && found.jobs.allSatisfy(\.state.isEnd)
            let status = watched.json ? found.limited(to: watched.limit) : found.saying(watched.hint)
            if isLive {
                let size = Terminal.size(STDOUT_FILENO)
                let lines =
                    watched.id == nil
                    ? StatusText(status, limit: watched.limit ?? .max).lines(width: size.width - 1, height: size.height - 1)
                    : view.lines(status, width: size.width, height: size.height)
                try screen.show(lines, redraws: true)
            } else if watched.json {
                if changes.isNew(status, at: start / .seconds(1)) {
                    try screen.show([JSONLine(StatusDocument(status)).text], redraws: false)
                }
            } else {
                try screen.show(log.lines(status, at: start / .seconds(1), date: Date().timestamp), redraws: false)
            }
            if hasEnded || keys?.wasPressed("q") == true { return }
            try await Task.sleep(for: max(isLive ? .milliseconds(250) : .seconds(1), cost * 9))
        }
    }
}

extension Status {
    /// With the jobs of most interest only; `total` still counts all.
    fileprivate func limited(to limit: Int?) -> Status {
        guard let limit else { return self }
        var status = self
        status.jobs = Array(jobsByInterest.prefix(limit))
        return status
    }
}

/// A status as JSON for programs.
private struct StatusDocument: Encodable {
    let jobs: [JobDocument]
    let workers: [WorkerStatus]
    let lostWorkers: [LostWorker]
    /// Absent while the coordinator takes jobs.
    let draining: Bool?
    let total: Int?

    init(_ status: Status) {
        jobs = status.jobs.map { JobDocument($0) }
        workers = status.workers
        lostWorkers = status.lostWorkers ?? []
        draining = status.draining
        total = status.total
    }
}

/// Tells whether a status says something new, apart from times and bytes, which always change. Where no job begins or ends, it
/// does so every few seconds at most.
struct StatusChanges {
    private var last: (status: Status, moment: Double)?
    private static let interval = 5.0

    /// - Parameter moment: seconds on any clock.
    mutating func isNew(_ status: Status, at moment: Double) -> Bool {
        let status = Self.withoutTimes(status)
        if let last {
            let isSame = status.jobs.map(\.state) == last.status.jobs.map(\.state)
            guard status != last.status, !isSame || moment - last.moment >= Self.interval else { return false }
        }
        last = (status, moment)
        return true
    }

    private static func withoutTimes(_ status: Status) -> Status {
        var status = status
        for index in status.jobs.indices {
            status.jobs[index].seconds = 0
            status.jobs[index].secondsPaused = nil
            status.jobs[index].secondsWaited = nil
            status.jobs[index].bytesDone = 0
            // It counts seconds.
            status.jobs[index].blockedReason = status.jobs[index].blockedReason.map { _ in "" }
            status.jobs[index].shardDetails = status.jobs[index].shardDetails?.map { shard in
                var shard = shard
                shard.bytesDone = 0
                return shard
            }
        }
        for index in status.workers.indices {
            status.workers[index].secondsConnected = 0
            status.workers[index].secondsResting = nil
            status.workers[index].secondsSinceHeard = nil
        }
        status.lostWorkers = status.lostWorkers?.map {
            LostWorker(name: $0.name, address: $0.address, reason: $0.reason, secondsAgo: 0, leases: $0.leases)
        }
        return status
    }
}
