import Core

/// The lines at the bottom of a terminal that are replaced as they change. Whatever else is written appears above them.
///
/// A value: it says what to write, and writes nothing.
struct LiveRegion {
    private var lines: [String] = []

    /// What replaces the lines that are shown.
    ///
    /// - Parameter width: of the terminal now. After it became narrower, lines that are shown may take several rows.
    mutating func show(_ new: [String], width: Int) -> String {
        let text = erase(width: width) + new.map { "\($0)\n" }.joined()
        lines = new
        return text
    }

    /// What writes `text` above the lines.
    mutating func insert(_ text: String, width: Int) -> String {
        let shown = lines
        return erase(width: width) + text + show(shown, width: width)
    }

    /// What is shown stays, and what comes next begins below: where the cursor is has become unknown, or nothing more comes.
    mutating func leave() { lines = [] }

    private mutating func erase(width: Int) -> String {
        guard !lines.isEmpty else { return "" }
        let rows = lines.reduce(0) { $0 + max(1, ($1.columns + width - 1) / max(1, width)) }
        lines = []
        return "\u{1b}[\(rows)A\r\u{1b}[J"
    }
}
