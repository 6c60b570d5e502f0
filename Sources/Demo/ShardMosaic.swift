import Protocol
import TesseraCLI

/// Shows each shard of a job as a coloured cell: the worker that processes or processed it.
struct ShardMosaic {
    private let workers: [String]
    private let screen = Screen()
    private var notes: [String] = []
    private var lastPlainLine = ""
    private static let colours: [Terminal.Style] = [.cyan, .yellow, .green]
    private static let tilesPerRow = 26

    init(workers: [String]) { self.workers = workers }

    mutating func note(_ text: String) { notes.append(text) }

    mutating func show(_ job: JobStatus) throws(ReaderGone) {
        guard Terminal.hasColour else { return try showPlainly(job) }
        let tiles = (job.shardDetails ?? []).map(tile)
        var lines = stride(from: 0, to: tiles.count, by: Self.tilesPerRow).map { start in
            "  " + tiles[start..<min(tiles.count, start + Self.tilesPerRow)].joined(separator: " ")
        }
        let legend = workers.map { Terminal.styled("■ \($0)", colour(of: $0)) }.joined(separator: "  ")
        lines += ["", "  \(job.shards.committed) of \(job.shards.total) shards   \(legend)   ▫ in progress  · waiting"]
        lines += notes.map { "  " + Terminal.styled($0, .red) }
        try screen.show(lines, redraws: true)
        if job.state.isEnd { screen.finish() }
    }

    /// One line per quarter of the job, for logs.
    private mutating func showPlainly(_ job: JobStatus) throws(ReaderGone) {
        let quarter = job.shards.total > 0 ? 4 * job.shards.committed / job.shards.total : 4
        for note in notes { print("  \(note)") }
        notes = []
        let line = "  \(quarter * 25) % of \(job.shards.total) shards"
        if line != lastPlainLine { print(line) }
        lastPlainLine = line
        try flushOutput()
    }

    private func tile(_ shard: ShardStatus) -> String {
        switch shard.state {
        case .pending: return Terminal.styled("·", .dim)
        case .leased: return Terminal.styled("▫", colour(of: shard.workers.first ?? ""))
        case .committed: return Terminal.styled("■", colour(of: shard.workers.first ?? ""))
        }
    }

    private func colour(of worker: String) -> Terminal.Style {
        workers.firstIndex(of: worker).map { Self.colours[$0 % Self.colours.count] } ?? .dim
    }
}
