package import ArgumentParser
import Core
import Engine
import FoundationEssentials
import Protocol

package struct StatusCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show a coordinator's jobs, shards and workers.")

    @Argument(help: "A job's id, or a unique prefix of it, to show its shards.")
    var job: String?

    @OptionGroup var target: CoordinatorArguments

    @Flag(help: "Keep updating until the job ends or Ctrl-C is pressed.")
    var watch = false

    @Flag(help: "Print JSON.")
    var json = false

    package init() {}

    package func run() async throws {
        let (job, watch, json) = (job, watch, json)
        let address = try target.address()
        try await cancelledBySignals {
            try await CoordinatorClient.connect(to: address) { client in
                var screen = Screen()
                while true {
                    let status = try await Self.status(of: job, &client)
                    if json {
                        try printJSON(status)
                    } else {
                        screen.show(StatusText(status).lines, redraws: watch)
                    }
                    let hasEnded = job != nil && status.jobs.allSatisfy(\.state.isEnd)
                    guard watch, !hasEnded else { return }
                    try await Task.sleep(for: .milliseconds(250))
                }
            }
        }
    }

    private static func status(of job: String?, _ client: inout CoordinatorClient) async throws -> Status {
        guard let job else { return try await client.status() }
        return try await client.status(of: try await client.find(job))
    }
}

/// A status formatted for people.
struct StatusText {
    private let status: Status

    init(_ status: Status) { self.status = status }

    var lines: [String] {
        var lines: [String] = []
        if status.jobs.isEmpty {
            lines.append("no jobs")
        } else {
            // Without access control all jobs have the same owner.
            let showsOwners = status.jobs.contains { $0.owner != PeerIdentity.anyone.owner }
            var table = TextTable(
                [
                    ("JOB", .left), ("STATE", .left), ("METHOD", .left), ("SHARDS", .right), ("DONE", .right), ("SIZE", .right),
                    ("TIME", .right),
                ] + (showsOwners ? [("OWNER", .left)] : []) + [("OUTPUT", .left)])
            for job in status.jobs {
                let share = job.bytesTotal > 0 ? 100 * job.bytesDone / job.bytesTotal : 100
                table.add(
                    [
                        String(job.id.description.prefix(8)), job.state.rawValue, job.method,
                        "\(job.shards.committed)/\(job.shards.total)",
                        "\(share) %", Quantity.bytes(job.bytesTotal), Quantity.seconds(job.seconds),
                    ] + (showsOwners ? [job.owner ?? PeerIdentity.unknownOwner] : []) + [job.output.isEmpty ? "-" : job.output])
            }
            lines += table.lines
            for job in status.jobs {
                for problem in [job.error?.description, job.blockedReason].compactMap(\.self) {
                    lines.append("\(job.id.description.prefix(8)): \(problem)")
                }
            }
        }
        for job in status.jobs { if let shards = job.shardDetails { lines += [""] + Self.shards(shards) } }
        lines.append("")
        if status.workers.isEmpty {
            lines.append("no workers")
        } else {
            var table = TextTable([
                ("WORKER", .left), ("STATE", .left), ("ADDRESS", .left), ("THREADS", .right), ("LEASES", .right),
                ("SHARDS", .right),
                ("MADE", .right), ("DIRECT", .right),
            ])
            for worker in status.workers {
                table.add([
                    worker.name, worker.state.rawValue, worker.address, "\(worker.threads)", "\(worker.leases)",
                    "\(worker.shardsDone)",
                    Quantity.bytes(worker.bytesDone), Quantity.bytes(worker.bytesDirect),
                ])
            }
            lines += table.lines
            for worker in status.workers {
                guard let count = worker.failedInARow, count > 0 else { continue }
                let rest = worker.secondsResting.map { ", and gets nothing for \(Quantity.seconds($0))" } ?? ""
                let reason = worker.lastError.map { ": \($0)" } ?? ""
                lines.append("\(worker.name) (\(worker.address)) failed \(count) in a row\(rest)\(reason)")
            }
            for worker in status.workers {
                guard let reason = worker.putAside else { continue }
                lines.append("\(worker.name) (\(worker.address)) is put aside: \(reason)")
            }
            for worker in status.workers {
                guard let problem = worker.copyProblem else { continue }
                lines.append("\(worker.name) (\(worker.address)) fetches an input: \(problem)")
            }
        }
        return lines
    }

    private static func shards(_ shards: [ShardStatus]) -> [String] {
        var table = TextTable([
            ("SHARD", .left), ("STATE", .left), ("WORKER", .left), ("ATTEMPTS", .right), ("DONE", .right), ("SIZE", .right),
        ])
        for shard in shards {
            let share = shard.bytesTotal > 0 ? 100 * shard.bytesDone / shard.bytesTotal : (shard.state == .committed ? 100 : 0)
            table.add([
                shard.label, shard.state.rawValue, shard.workers.joined(separator: ", "), "\(shard.attempts)", "\(share) %",
                Quantity.bytes(shard.bytesTotal),
            ])
        }
        let failures = shards.flatMap { shard in
            (shard.failures ?? []).map { "\(shard.label) failed on \($0.worker) (\($0.address)): \($0.error)" }
        }
        return table.lines + failures
    }
}
