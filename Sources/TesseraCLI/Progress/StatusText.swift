import Core
import Protocol

/// A coordinator's status as tables for people.
struct StatusText {
    private let status: Status
    /// Jobs in the order in which they are listed, and how many of them at most.
    private let jobs: [JobStatus]
    private let limit: Int

    /// - Parameter limit: jobs to list at most.
    init(_ status: Status, limit: Int = .max) {
        self.status = status
        self.limit = limit
        jobs = status.jobsByInterest
    }

    /// - Parameters:
    ///   - width: of the lines at most; `nil` for no limit.
    ///   - height: lines at most, of which jobs that have ended give way first; `nil` for no limit.
    func lines(width: Int?, height: Int?) -> [String] {
        guard let height else {
            let shown = jobs.prefix(limit), shards = status.jobs.flatMap { Self.shards(of: $0, width: width) }
            return table(of: shown, width: width) + shards + [""] + workers(in: .max, width: width)
                + words(on: shown, width: width)
        }
        // Of jobs that are not listed there are no notes, and with notes fewer have space: the second look knows how many lines
        // these take at most.
        var notes: [String] = [], below: [String] = [], shown = jobs.prefix(0)
        for _ in 0..<2 {
            let space = height - 1 - notes.count
            // Half of the lines are the workers', if they need as many.
            below = workers(in: max(space / 2, space - 1 - jobs.count), width: width)
            shown = jobs.prefix(min(limit, Self.rows(of: jobs.count, in: space - below.count)))
            notes = Self.cut(words(on: shown, width: width), to: height / 3)
        }
        return table(of: shown, width: width) + [""] + below + notes
    }

    /// How many rows have space below their titles: all, or as many as leave a line for the number of the others.
    private static func rows(of count: Int, in lines: Int) -> Int { count < lines ? count : max(0, lines - 2) }

    private static func cut(_ notes: [String], to lines: Int) -> [String] {
        guard notes.count > lines else { return notes }
        guard lines > 0 else { return [] }
        let rest = notes.count - lines + 1
        return notes.prefix(lines - 1) + ["and \(rest) more lines; 'tessera status JOB' has all about a job"]
    }

    // MARK: Jobs

    private func table(of shown: ArraySlice<JobStatus>, width: Int?) -> [String] {
        guard !jobs.isEmpty else { return ["no jobs"] }
        // Without access control all jobs have the same owner.
        let showsOwners = shown.contains { $0.owner != PeerIdentity.anyone.owner }
        let showsNames = shown.contains { $0.name != nil }, showsRates = shown.contains { $0.rate != nil }
        var table = TextTable(
            [
                ("JOB", .left), ("STATE", .left), ("METHOD", .left), ("SHARDS", .right), ("DONE", .right), ("SIZE", .right),
                ("TIME", .right),
            ] + (showsRates ? [("LEFT", .right), ("RATE", .right)] : []) + (showsOwners ? [("OWNER", .left)] : [])
                + (showsNames ? [("NAME", .left)] : []) + [("OUTPUT", .left)],
            expendable: ["METHOD", "SIZE", "OWNER", "TIME", "RATE"])
        for job in shown {
            let rates = [
                job.rate.flatMap { job.secondsLeft(at: Double($0)) }.map { Quantity.wholeSeconds($0) } ?? "",
                job.rate.map { "\(Quantity.bytes($0))/s" } ?? "",
            ]
            table.add(
                [
                    String(job.id.description.prefix(8)), job.word, job.method,
                    "\(job.shards.committed)/\(job.shards.total)", "\(job.percent) %", Quantity.bytes(job.bytesTotal),
                    Quantity.seconds(job.seconds),
                ] + (showsRates ? rates : []) + (showsOwners ? [job.owner ?? PeerIdentity.unknownOwner] : [])
                    + (showsNames ? [job.name ?? ""] : []) + [job.output.isEmpty ? "-" : job.output])
        }
        let rest = jobs.count - shown.count
        return table.lines(fitting: width) + (rest > 0 ? ["and \(rest) more \(rest == 1 ? "job" : "jobs")"] : [])
    }

    // MARK: Workers

    /// - Parameter height: lines at most.
    private func workers(in height: Int, width: Int?) -> [String] {
        let lost = status.lostWorkers ?? [], count = status.workers.count + lost.count
        guard count > 0 else { return Array(["no workers"].prefix(height)) }
        guard height > 1 else { return [] }
        let shown = Self.rows(of: count, in: height)
        var table = TextTable(
            [
                ("WORKER", .left), ("STATE", .left), ("ADDRESS", .left), ("THREADS", .right), ("LEASES", .right),
                ("SHARDS", .right), ("MADE", .right), ("DIRECT", .right),
            ], expendable: ["ADDRESS", "DIRECT", "THREADS"])
        for worker in status.workers.sorted(by: { $0.name.precedesNaturally($1.name) }).prefix(shown) {
            table.add([
                worker.name, worker.state.rawValue, worker.address, "\(worker.threads)", "\(worker.leases)",
                "\(worker.shardsDone)", Quantity.bytes(worker.bytesDone), Quantity.bytes(worker.bytesDirect),
            ])
        }
        for worker in lost.prefix(max(0, shown - status.workers.count)) {
            table.add([worker.name, "lost", worker.address, "", "\(worker.leases)", "", "", ""])
        }
        return table.lines(fitting: width) + (shown < count ? ["and \(count - shown) more workers"] : [])
    }

    // MARK: Words

    /// What is wrong, in words.
    private func words(on shown: ArraySlice<JobStatus>, width: Int?) -> [String] {
        var words = shown.compactMap { job in job.error.map { "\(job.id.description.prefix(8)): \($0)" } }
        words += waiting() + shown.compactMap { job in job.note.map { "\(job.id.description.prefix(8)): \($0)" } }
        words += status.trouble
        return Self.wrapped(words, width: width)
    }

    private static func wrapped(_ texts: [String], width: Int?) -> [String] {
        texts.map(\.printable).flatMap { text in width.map { text.wrapped(toColumns: $0, indent: 2) } ?? [text] }
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
            return "\(group.map { String($0.id.description.prefix(8)) }.listed): \(reason(job))"
        }
    }

    // MARK: Shards

    private static func shards(of job: JobStatus, width: Int?) -> [String] {
        guard let shards = job.shardDetails else { return [] }
        var table = TextTable([
            ("SHARD", .left), ("STATE", .left), ("WORKER", .left), ("ATTEMPTS", .right), ("DONE", .right), ("SIZE", .right),
        ])
        for shard in shards {
            table.add([
                shard.label, shard.activity(in: job), shard.workers.joined(separator: ", "), "\(shard.attempts)",
                "\(shard.percent) %", Quantity.bytes(shard.bytesTotal),
            ])
        }
        return [""] + table.lines(fitting: width) + wrapped(failures(of: shards), width: width)
    }

    /// Attempts that failed for one reason share a line.
    private static func failures(of shards: [ShardStatus]) -> [String] {
        var reasons: [TesseraError] = [], shardsOf: [TesseraError: [String]] = [:], workersOf: [TesseraError: [String]] = [:]
        for shard in shards {
            for failure in shard.failures ?? [] {
                let worker = "\(failure.worker) (\(failure.address))"
                if shardsOf[failure.error] == nil { reasons.append(failure.error) }
                if shardsOf[failure.error]?.last != shard.label { shardsOf[failure.error, default: []].append(shard.label) }
                if workersOf[failure.error]?.contains(worker) != true { workersOf[failure.error, default: []].append(worker) }
            }
        }
        return reasons.map { "\((shardsOf[$0] ?? []).listed) failed on \((workersOf[$0] ?? []).listed): \($0)" }
    }
}

extension ShardStatus {
    /// What the shard does, in a word: where the job has ended, nothing waits any more.
    func activity(in job: JobStatus) -> String {
        guard job.state.isEnd, state != .committed else { return state.rawValue }
        return failures?.isEmpty == false ? "failed" : "not done"
    }
}

extension Status {
    /// Jobs that are worked on, in order of submission, and then those that have ended, the newest first: the last ones are cut
    /// off where there is no space.
    var jobsByInterest: [JobStatus] {
        func end(_ job: JobStatus) -> Double { job.submittedAt + job.seconds }
        return jobs.filter { !$0.state.isEnd } + jobs.filter(\.state.isEnd).sorted { end($0) > end($1) }
    }

    /// The status with what to do about jobs that wait since there is no worker at all.
    func saying(_ hint: WorkerHint) -> Status {
        guard workers.isEmpty else { return self }
        var status = self
        for index in jobs.indices where jobs[index].state == .running {
            status.jobs[index].blockedReason = jobs[index].blockedReason.map { "\($0); \(hint.text)" }
        }
        return status
    }
}

extension JobStatus {
    /// Bytes per second of late, of a job that workers are at.
    fileprivate var rate: Int? { isMoving ? bytesPerSecond.map { Int(max(0, min($0, 1e18))) } : nil }
}

extension LostWorker {
    var description: String {
        let shards = leases == 0 ? "" : ", while it worked on \(leases) \(leases == 1 ? "shard" : "shards")"
        return "\(name) (\(address)) was lost \(Quantity.wholeSeconds(secondsAgo)) ago\(shards): \(reason)"
    }
}
