import Core

/// A table whose columns fit their contents.
package struct TextTable {
    package enum Alignment { case left, right }

    private var rows: [[String]] = []
    private let alignments: [Alignment]
    /// The columns that go where the lines are too narrow for all, the first of them first.
    private let expendable: [Int]

    /// Control characters in titles and rows are escaped.
    ///
    /// - Parameter expendable: titles of columns that are left out where there is no space for all, the first of them first.
    package init(_ columns: [(title: String, alignment: Alignment)], expendable: [String] = []) {
        self.expendable = expendable.compactMap { title in columns.firstIndex { $0.title == title } }
        alignments = columns.map(\.alignment)
        rows = [columns.map(\.title.printable)]
    }

    package mutating func add(_ row: [String]) { rows.append(row.map(\.printable)) }

    package var lines: [String] { lines(fitting: nil) }

    /// - Parameter width: of the lines, in cells. Where the table is wider, the widest columns of text are narrowed, and what has
    ///   no space in them is cut in the middle; before they become very narrow, expendable columns are left out. `nil` for no
    ///   limit.
    package func lines(fitting width: Int?) -> [String] {
        let shown = columns(fitting: width), widths = widths(of: shown, fitting: width)
        return rows.map { row in
            let cells = shown.map { column in
                let cell = row[column].shortened(toColumns: widths[column])
                let padding = String(repeating: " ", count: widths[column] - cell.columns)
                return alignments[column] == .left ? cell + padding : padding + cell
            }
            let line = String(cells.joined(separator: Self.gap).reversed().drop { $0 == " " }.reversed())
            // Numbers are not narrowed: on a very narrow terminal the last columns are cut off.
            return width.map { line.columns > $0 ? line.prefix(columns: $0 - 1) + "…" : line } ?? line
        }
    }

    private static let gap = "  "
    /// Cells of a column that is not narrowed further.
    private static let least = 8
    /// Cells of a column of text that expendable columns give way to.
    private static let comfortable = 20

    private var naturalWidths: [Int] {
        alignments.indices.map { column in rows.map { $0[column].columns }.max() ?? 0 }
    }

    /// The columns that have space beside each other once they are narrowed.
    private func columns(fitting width: Int?) -> [Int] {
        var shown = Array(alignments.indices)
        guard let width else { return shown }
        let least = naturalWidths.enumerated().map { alignments[$0] == .left ? min($1, Self.comfortable) : $1 }
        for column in expendable where shown.reduce(Self.gap.count * (shown.count - 1), { $0 + least[$1] }) > width {
            shown.removeAll { $0 == column }
        }
        return shown
    }

    /// Of all columns; those that are not shown keep their own.
    private func widths(of shown: [Int], fitting width: Int?) -> [Int] {
        var widths = naturalWidths
        guard let width else { return widths }
        var excess = shown.reduce(Self.gap.count * max(0, shown.count - 1)) { $0 + widths[$1] } - width
        while excess > 0 {
            let columns = shown.filter { alignments[$0] == .left && widths[$0] > Self.least }
            guard let widest = columns.max(by: { widths[$0] < widths[$1] }) else { break }
            // Down to the next widest, so that several long columns share the loss.
            let next = columns.filter { $0 != widest }.map { widths[$0] }.max() ?? Self.least
            let cut = min(excess, max(1, widths[widest] - max(next, Self.least)))
            widths[widest] -= cut
            excess -= cut
        }
        return widths
    }
}
