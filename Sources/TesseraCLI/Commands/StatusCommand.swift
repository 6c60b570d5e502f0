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
            Keep updating until the job ends or Ctrl-C is pressed. Where stdout is no terminal: a dated line for each change.
            """)
    var watch = false

    @Flag(help: "Print JSON; with --watch, an object a line for each change.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let (job, watch, json) = (job, watch, json)
        let address = try target.address()
        try await cancelledBySignals {
            if watch {
                let screen = Screen()
                defer { screen.finish() }
                try await CoordinatorClient.reconnecting(to: address, remark: Terminal.remark) { client in
                    // The next connection begins a view of its own.
                    screen.clear()
                    try await Self.follow(try await Self.find(job, &client), json: json, on: screen, &client)
                }
            } else {
                let status = try await CoordinatorClient.connect(to: address) { client in
                    if let id = try await Self.find(job, &client) { return try await client.status(of: id) }
                    return try await client.status()
                }
                if json { return try printJSON(StatusDocument(status)) }
                Screen().show(StatusText(status).lines(width: Terminal.outputWidth, height: nil), redraws: false)
            }
        }
    }

    private static func find(_ job: String?, _ client: inout CoordinatorClient) async throws -> JobID? {
        guard let job else { return nil }
        return try await client.find(job)
    }

    /// Shows each change until the job has ended, if there is one.
    private static func follow(
        _ id: JobID?, json: Bool, on screen: Screen, _ client: inout CoordinatorClient
    ) async throws {
        var view = JobView(), changes = StatusChanges(), log = StatusLog()
        let isLive = Terminal.isTerminal(STDOUT_FILENO) && !json, time = TimeSource.system
        while true {
            let start = time.now()
            let status = if let id { try await client.progress(of: id) } else { try await client.status() }
            let cost = time.now() - start, hasEnded = id != nil && status.jobs.allSatisfy(\.state.isEnd)
            if isLive {
                let size = Terminal.size(STDOUT_FILENO)
                let lines =
                    id == nil
                    ? StatusText(status).lines(width: size.width - 1, height: size.height - 1)
                    : view.lines(status, width: size.width, height: size.height)
                screen.show(lines, redraws: true)
            } else if json {
                if changes.isNew(status, at: start / .seconds(1)) {
                    screen.show([JSONLine(StatusDocument(status)).text], redraws: false)
                }
            } else {
                screen.show(log.lines(status, at: start / .seconds(1), date: Date().timestamp), redraws: false)
            }
            if hasEnded { return }
            try await Task.sleep(for: max(isLive ? .milliseconds(250) : .seconds(1), cost * 9))
        }
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
