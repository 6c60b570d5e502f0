import Core

/// A table whose columns fit their contents.
package struct TextTable {
    package enum Alignment { case left, right }

    private var rows: [[String]] = []
    private let alignments: [Alignment]

    package init(_ columns: [(title: String, alignment: Alignment)]) {
        alignments = columns.map(\.alignment)
        rows = [columns.map(\.title)]
    }

    /// Control characters in the row are escaped.
    package mutating func add(_ row: [String]) { rows.append(row.map(\.printable)) }

    package var lines: [String] { lines(fitting: nil) }

    /// - Parameter width: of the lines, in cells. Where the table is wider, the widest columns of text are narrowed, and what has
    ///   no space in them is cut in the middle. `nil` for no limit.
    package func lines(fitting width: Int?) -> [String] {
        let widths = widths(fitting: width)
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let cell = cell.shortened(toColumns: widths[column])
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

    private func widths(fitting width: Int?) -> [Int] {
        var widths = alignments.indices.map { column in rows.map { $0[column].columns }.max() ?? 0 }
        guard let width else { return widths }
        var excess = widths.reduce(0, +) + Self.gap.count * max(0, widths.count - 1) - width
        while excess > 0 {
            let columns = widths.indices.filter { alignments[$0] == .left && widths[$0] > Self.least }
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
