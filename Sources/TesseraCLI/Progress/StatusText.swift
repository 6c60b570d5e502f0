import Core
import Protocol

/// A coordinator's status as tables for people.
struct StatusText {
    private let status: Status

    init(_ status: Status) { self.status = status }

    /// - Parameters:
    ///   - width: of the lines at most; `nil` for no limit.
    ///   - height: lines at most, of which jobs that have ended give way first; `nil` for no limit.
    func lines(width: Int?, height: Int?) -> [String] {
        let workers = workers(width: width), words = words(width: width)
        let shards = status.jobs.compactMap(\.shardDetails).flatMap { [""] + Self.shards($0, width: width) }
        guard let height else { return jobs(width: width).all + shards + [""] + workers.all + words }
        // Half of the lines are the workers', if they need as many.
        let column = width ?? .max, notes = Array(words.prefix(max(0, height / 3)))
        let space = height - 1 - notes.count
        let below = workers.fitting(max(space / 2, space - jobs(width: width).all.count), width: column)
        return jobs(width: width).fitting(space - below.count, width: column) + [""] + below + notes
    }

    private func jobs(width: Int?) -> Rows {
        guard !status.jobs.isEmpty else { return Rows(head: nil, rows: ["no jobs"], noun: "jobs") }
        // Without access control all jobs have the same owner.
        let showsOwners = status.jobs.contains { $0.owner != PeerIdentity.anyone.owner }
        let showsNames = status.jobs.contains { $0.name != nil }
        var table = TextTable(
            [
                ("JOB", .left), ("STATE", .left), ("METHOD", .left), ("SHARDS", .right), ("DONE", .right), ("SIZE", .right),
                ("TIME", .right),
            ] + (showsOwners ? [("OWNER", .left)] : []) + (showsNames ? [("NAME", .left)] : []) + [("OUTPUT", .left)],
            expendable: ["METHOD", "SIZE", "TIME", "OWNER"])
        for job in status.jobsByInterest {
            table.add(
                [
                    String(job.id.description.prefix(8)), job.word, job.method,
                    "\(job.shards.committed)/\(job.shards.total)", "\(job.percent) %", Quantity.bytes(job.bytesTotal),
                    Quantity.seconds(job.seconds),
                ] + (showsOwners ? [job.owner ?? PeerIdentity.unknownOwner] : []) + (showsNames ? [job.name ?? ""] : []) + [
                    job.output.isEmpty ? "-" : job.output
                ])
        }
        let lines = table.lines(fitting: width)
        return Rows(head: lines[0], rows: Array(lines.dropFirst()), noun: "jobs")
    }

    private func workers(width: Int?) -> Rows {
        let lost = status.lostWorkers ?? []
        guard !status.workers.isEmpty || !lost.isEmpty else {
            return Rows(head: nil, rows: ["no workers"], noun: "workers")
        }
        var table = TextTable(
            [
                ("WORKER", .left), ("STATE", .left), ("ADDRESS", .left), ("THREADS", .right), ("LEASES", .right),
                ("SHARDS", .right), ("MADE", .right), ("DIRECT", .right),
            ], expendable: ["ADDRESS", "DIRECT", "THREADS"])
        for worker in status.workers.sorted(by: { $0.name.precedesNaturally($1.name) }) {
            table.add([
                worker.name, worker.state.rawValue, worker.address, "\(worker.threads)", "\(worker.leases)",
                "\(worker.shardsDone)", Quantity.bytes(worker.bytesDone), Quantity.bytes(worker.bytesDirect),
            ])
        }
        for worker in lost { table.add([worker.name, "lost", worker.address, "", "\(worker.leases)", "", "", ""]) }
        let lines = table.lines(fitting: width)
        return Rows(head: lines[0], rows: Array(lines.dropFirst()), noun: "workers")
    }

    /// What is wrong, in words.
    private func words(width: Int?) -> [String] {
        var words = status.jobs.compactMap { job in job.error.map { "\(job.id.description.prefix(8)): \($0)" } }
        words += waiting() + status.jobs.compactMap { job in job.note.map { "\(job.id.description.prefix(8)): \($0)" } }
        words += status.trouble
        return words.map(\.printable).flatMap { words in width.map { words.wrapped(toColumns: $0, indent: 2) } ?? [words] }
            .map { line in width.map { line.shortened(toColumns: $0) } ?? line }
    }

    /// Why jobs wait. Those that wait for one reason share a line, and so do those behind other jobs.
    private func waiting() -> [String] {
        let jobs = status.jobs.filter { $0.blockedReason != nil }
        let queue = jobs.filter { $0.behind != nil }
        func reason(_ job: JobStatus) -> String {
            job.behind != nil && queue.count > 1 ? "wait behind other jobs" : job.blockedReason ?? ""
        }
        var byReason: [String: [JobStatus]] = [:]
        for job in jobs { byReason[reason(job), default: []].append(job) }
        return jobs.compactMap { job in
            guard let group = byReason.removeValue(forKey: reason(job)) else { return nil }
            let names = group.prefix(3).map { "\($0.id.description.prefix(8))" }.joined(separator: ", ")
            return "\(names)\(group.count > 3 ? " and \(group.count - 3) more" : ""): \(reason(job))"
        }
    }

    private static func shards(_ shards: [ShardStatus], width: Int?) -> [String] {
        var table = TextTable([
            ("SHARD", .left), ("STATE", .left), ("WORKER", .left), ("ATTEMPTS", .right), ("DONE", .right), ("SIZE", .right),
        ])
        for shard in shards {
            table.add([
                shard.label, shard.state.rawValue, shard.workers.joined(separator: ", "), "\(shard.attempts)",
                "\(shard.percent) %", Quantity.bytes(shard.bytesTotal),
            ])
        }
        let failures = shards.flatMap { shard in
            (shard.failures ?? []).map { "\(shard.label) failed on \($0.worker) (\($0.address)): \($0.error)".printable }
        }
        return table.lines(fitting: width) + failures
    }
}

extension Status {
    /// Jobs that are worked on, in order of submission, and then those that have ended, the newest first: the last ones are cut
    /// off where there is no space.
    var jobsByInterest: [JobStatus] {
        func end(_ job: JobStatus) -> Double { job.submittedAt + job.seconds }
        return jobs.filter { !$0.state.isEnd } + jobs.filter(\.state.isEnd).sorted { end($0) > end($1) }
    }
}

extension LostWorker {
    var description: String {
        let shards = leases == 0 ? "" : ", while it worked on \(leases) \(leases == 1 ? "shard" : "shards")"
        return "\(name) (\(address)) was lost \(Quantity.wholeSeconds(secondsAgo)) ago\(shards): \(reason)"
    }
}

extension Rows {
    /// Every row, whatever the height.
    fileprivate var all: [String] { [head].compactMap(\.self) + rows }
}
