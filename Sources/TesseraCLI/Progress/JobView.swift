import Core
import Protocol

/// What a terminal shows of a job while it is followed: a value, status in and lines out.
struct JobView {
    private var pace = JobPace()
    /// Colours a text; the same text without colours.
    private let styled: @Sendable (String, Terminal.Style) -> String

    init(styled: @escaping @Sendable (String, Terminal.Style) -> String = Terminal.styled) { self.styled = styled }

    /// - Parameters:
    ///   - status: one job with the shards that run, and the workers.
    ///   - width: of the terminal; the lines leave its last column free, where some terminals break the line.
    ///   - height: of the terminal; the lines leave one row free for the cursor.
    mutating func lines(_ status: Status, width: Int, height: Int) -> [String] {
        guard let job = status.jobs.first else { return [] }
        pace.note(job)
        let width = max(20, width - 1), rows = max(1, height - 1)
        var lines = [bar(job, width: width)]
        if rows > 1 { lines.append(figures(job, width: width)) }
        if rows > 3 { lines.insert(title(job, width: width), at: 0) }
        let words = trouble(job, status).flatMap { $0.wrapped(toColumns: width).map { $0.shortened(toColumns: width) } }
        lines += words.prefix(max(0, rows - lines.count)).map { styled($0, .yellow) }
        return lines + work(status, width: width).fitting(rows - lines.count, width: width)
    }

    private func title(_ job: JobStatus, width: Int) -> String {
        let name = "job \(job.id.description.prefix(8))\(job.name.map { " \($0.shortened(toColumns: 20))" } ?? "")".printable
        let left = "\(job.method) → \(job.output)".printable.shortened(toColumns: max(1, width - name.columns - 2))
        return left + String(repeating: " ", count: max(1, width - left.columns - name.columns)) + styled(name, .dim)
    }

    private func bar(_ job: JobStatus, width: Int) -> String {
        let left = pace.secondsLeft(of: job).map { "  \(Quantity.wholeSeconds($0)) left" } ?? ""
        let text = "  \(job.percent) %\(left)"
        let length = width - text.columns
        guard length >= 10 else { return "\(job.percent) %\(left)".shortened(toColumns: width) }
        let full = min(length, Int(job.share * Double(length)))
        return styled(String(repeating: "━", count: full), .cyan) + styled(String(repeating: "─", count: length - full), .dim)
            + text
    }

    /// Bytes, rate, shards and time, as many as have space.
    private func figures(_ job: JobStatus, width: Int) -> String {
        let rate = pace.bytesPerSecond(of: job).map { "\(Quantity.bytes(Int(min($0, 1e18))))/s" }
        var figures = [
            "\(Quantity.bytes(job.bytesDone)) of \(Quantity.bytes(job.bytesTotal))", rate,
            "\(job.shards.committed) of \(job.shards.total) shards", job.repeated > 0 ? "\(job.repeated) repeated" : nil,
            job.state == .publishing ? "writing to disk" : job.state == .running ? nil : job.state.rawValue,
            Quantity.wholeSeconds(job.seconds),
        ].compactMap(\.self)
        while figures.count > 1, figures.joined(separator: Self.gap).columns > width { figures.removeLast() }
        return figures.joined(separator: Self.gap).shortened(toColumns: width)
    }

    private static let gap = "   "

    /// Why the job does not get on, and which workers are missing.
    private func trouble(_ job: JobStatus, _ status: Status) -> [String] {
        let reasons = [job.error?.description, job.blockedReason, job.note].compactMap(\.self)
        return (reasons + status.trouble).map(\.printable)
    }

    /// Who works on what.
    private func work(_ status: Status, width: Int) -> Rows {
        let running = status.jobs.first?.shardDetails ?? []
        guard !status.isLocal else {
            guard !running.isEmpty else { return Rows(head: nil, rows: [], noun: "") }
            return Rows(
                head: nil, rows: ["now: \(Self.listed(running))".shortened(toColumns: width)], noun: "")
        }
        var shards: [String: [ShardStatus]] = [:]
        for shard in running { for worker in shard.workers { shards[worker, default: []].append(shard) } }
        var table = TextTable([
            ("WORKER", .left), ("STATE", .left), ("SHARDS", .right), ("MADE", .right), ("NOW", .left),
        ])
        let workers = status.workers.sorted { $0.name.precedesNaturally($1.name) }
        for worker in workers {
            table.add([
                worker.name, worker.state.rawValue, "\(worker.shardsDone)", Quantity.bytes(worker.bytesDone),
                Self.listed(shards[worker.name] ?? []),
            ])
        }
        let lines = table.lines(fitting: width)
        return Rows(head: workers.isEmpty ? nil : lines[0], rows: Array(lines.dropFirst()), noun: "workers")
    }

    private static func listed(_ shards: [ShardStatus]) -> String {
        guard let first = shards.first else { return "" }
        // A list would be cut in its middle.
        return "\(first.label) \(first.percent) %" + (shards.count > 1 ? " and \(shards.count - 1) more" : "")
    }
}

extension Quantity {
    /// Fractions of a time that goes on would flicker.
    static func wholeSeconds(_ seconds: Double) -> String {
        seconds < 60 ? "\(decimal(seconds.rounded(.down), places: 0)) s" : Self.seconds(seconds)
    }
}

extension Status {
    /// Whether the only worker is the process itself.
    fileprivate var isLocal: Bool { workers.allSatisfy { $0.address == "local" } && !workers.isEmpty }
}

extension ShardStatus {
    var percent: Int { bytesTotal > 0 ? Int(100 * Double(bytesDone) / Double(bytesTotal)) : state == .committed ? 100 : 0 }
}

extension Status {
    /// What is wrong with coordinator and workers, in sentences. Workers that are idle for one reason share a sentence.
    var trouble: [String] {
        let idle = workers.filter { $0.idleReason != nil }
        let reasons = idle.compactMap(\.idleReason).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        let idleness = reasons.map { reason in
            let names = idle.filter { $0.idleReason == reason }.map(\.name)
            return "\(names.listed) \(names.count == 1 ? "is" : "are") idle: \(reason)"
        }
        let end = draining == true ? ["the coordinator takes no more jobs, and ends after those that it has"] : []
        return end + idleness + workers.compactMap(\.trouble) + (lostWorkers ?? []).map(\.description)
    }
}

extension WorkerStatus {
    /// Why the worker is of little use, for people.
    var trouble: String? {
        if let putAside { return "\(name) (\(address)) is put aside: \(putAside)" }
        guard let count = failedInARow, count > 0 else {
            return copyProblem.map { "\(name) (\(address)) fetches an input: \($0)" }
        }
        let rest = secondsResting.map { ", and gets nothing for \(Quantity.wholeSeconds($0))" } ?? ""
        return "\(name) (\(address)) failed \(count) in a row\(rest)" + (lastError.map { ": \($0)" } ?? "")
    }
}

extension [String] {
    /// The first names, and how many more there are.
    var listed: String { prefix(3).joined(separator: ", ") + (count > 3 ? " and \(count - 3) more" : "") }
}

/// Rows of a table of which only some may have space.
struct Rows {
    /// The titles.
    let head: String?
    let rows: [String]
    /// What the rows are, in the plural.
    let noun: String

    /// As many rows as there is space for, and how many more there are.
    func fitting(_ height: Int, width: Int) -> [String] {
        let heads = [head].compactMap(\.self), space = height - heads.count
        guard space > 0, !rows.isEmpty else { return [] }
        guard rows.count > space else { return heads + rows }
        let shown = rows.prefix(space - 1)
        return heads + shown + ["and \(rows.count - shown.count) more \(noun)".shortened(toColumns: width)]
    }
}
