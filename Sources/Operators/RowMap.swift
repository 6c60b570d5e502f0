/// Where the rows of one model's aligned matrix come from, once vocabularies differ.
///
/// Row `i` of an aligned matrix belongs to token `i` of the output vocabulary. The map says, for consecutive rows, which stored
/// matrix they are read from; an untouched vocabulary is one run, however long. Sources are counted as the tensor's sources are.
package struct RowMap: Sendable, Hashable {
    /// A row of a stored matrix.
    package struct SourceRow: Sendable, Hashable {
        package let source: Int
        package let row: Int

        package init(source: Int, row: Int) {
            self.source = source
            self.row = row
        }

        fileprivate func advanced(by count: Int) -> SourceRow { SourceRow(source: source, row: row + count) }
    }

    /// What the first row of a run is; of the rows after it, each is one row further in every matrix that is named.
    package enum Origin: Sendable, Hashable {
        case stored(SourceRow)
        /// The mean of several rows, in this order.
        case mean([SourceRow])
        case zero
        /// The mean of all rows that are not padding themselves.
        case padding

        fileprivate func advanced(by count: Int) -> Origin {
            switch self {
            case .stored(let row): .stored(row.advanced(by: count))
            case .mean(let rows): .mean(rows.map { $0.advanced(by: count) })
            case .zero, .padding: self
            }
        }
    }

    package struct Run: Sendable, Hashable {
        package let origin: Origin
        /// Rows of the aligned matrix, at least one.
        package fileprivate(set) var rows: Range<Int>

        /// The origin of one of the run's rows.
        package func origin(ofRow row: Int) -> Origin { origin.advanced(by: row - rows.lowerBound) }
    }

    /// Without gaps, from row 0 on; neighbours do not continue each other.
    package private(set) var runs: [Run] = []

    package init() {}

    /// Rows of the aligned matrix.
    package var rowCount: Int { runs.last?.rows.upperBound ?? 0 }

    /// Adds `count` rows at the end, the first of which is `origin`.
    package mutating func append(_ origin: Origin, count: Int = 1) {
        guard count > 0 else { return }
        let start = rowCount
        if let last = runs.last, last.origin(ofRow: start) == origin {
            runs[runs.count - 1].rows = last.rows.lowerBound..<start + count
        } else {
            runs.append(Run(origin: origin, rows: start..<start + count))
        }
    }

    /// The run that holds `row`, which must be below `rowCount`.
    package func runIndex(ofRow row: Int) -> Int {
        var low = 0, high = runs.count - 1
        while low < high {
            let middle = (low + high + 1) / 2
            if runs[middle].rows.lowerBound <= row { low = middle } else { high = middle - 1 }
        }
        return low
    }

    /// What `row`, which must be below `rowCount`, is made of.
    package func origin(ofRow row: Int) -> Origin { runs[runIndex(ofRow: row)].origin(ofRow: row) }

    /// How many rows each of `sources` matrices must have for every run to lie inside.
    func rowsNeeded(sources: Int) -> [Int]? {
        var needed = Array(repeating: 0, count: sources)
        for run in runs {
            let rows: [SourceRow] =
                switch run.origin {
                case .stored(let row): [row]
                case .mean(let rows): rows
                case .zero, .padding: []
                }
            for row in rows {
                guard needed.indices.contains(row.source) else { return nil }
                needed[row.source] = max(needed[row.source], row.row + run.rows.count)
            }
        }
        return needed
    }
}
