import Testing

/// The tables that say which test shows what becomes of a fault, or of an attack.
@Suite struct FaultTests {
    private struct Row {
        /// Where the row stands.
        let place: String
        let cells: [String]

        var faults: [Int] {
            cells[0].split(separator: ",").compactMap { Int($0.drop { $0 == " " || $0 == "F" }.prefix(while: \.isNumber)) }
        }

        /// What the last cell has in backticks.
        var spans: [String] {
            let pieces = cells[cells.count - 1].split(separator: "`", omittingEmptySubsequences: false)
            return pieces.indices.filter { $0 % 2 == 1 }.map { String(pieces[$0]) }
        }
    }

    /// Faults of processes, network, inputs, outputs, time and versions, and hostile peers.
    private static let faults = 1...54

    /// The rows of tables whose last column names tests.
    private static let rows: [Row] = SourceTree.markdown.filter { ["docs/faults.md", "docs/security.md"].contains($0.path) }
        .flatMap { page -> [Row] in
            var namesTests = false
            return page.lines.enumerated().compactMap { index, line in
                guard line.hasPrefix("|") else {
                    namesTests = false
                    return nil
                }
                guard !line.hasPrefix("|--") else { return nil }
                let cells = line.split(separator: "|").map { $0.drop { $0 == " " }.trimmingSuffix { $0 == " " } }.map(String.init)
                if ["test", "shown by"].contains(cells.last) {
                    namesTests = true
                    return nil
                }
                return namesTests ? Row(place: "\(page.path):\(index + 1)", cells: cells) : nil
            }
        }

    /// Every function and type of tests, and whether it stands below `@Test` or `@Suite`.
    private static let tests: Set<String> = {
        var names: Set<String> = []
        for (file, code) in Code.swift where file.isIn("Tests") {
            for declaration in code.declarations where ["func", "struct", "class", "extension"].contains(declaration.keyword) {
                // Its attribute may have arguments over many lines.
                let above = code.lines[..<(declaration.line - 1)].reversed().prefix { !$0.contains("func") }.prefix(60)
                let own = code.lines[declaration.line - 1] + above.joined()
                if own.contains("Test") || own.contains("Suite") { names.insert(declaration.name) }
            }
        }
        return names
    }()

    @Test func everyFaultHasARow() {
        let found = Set(Self.rows.flatMap(\.faults))
        for fault in Self.faults where !found.contains(fault) {
            Issue.record(
                "F\(fault) is in no table of docs/faults.md and docs/security.md: say what happens and which test shows it")
        }
        #expect(Self.rows.count > 100)
    }

    /// Or the reason why there is none.
    @Test func everyRowNamesATest() {
        for row in Self.rows {
            let named = row.spans.map { $0.split(separator: ".").last.map(String.init) ?? $0 }
            let isTested = row.spans.contains { $0.hasPrefix("Tests/") } || named.contains(where: Self.tests.contains)
            let last = row.cells[row.cells.count - 1]
            if !isTested, !last.hasPrefix("no test"), !last.hasPrefix("[") {
                Issue.record("\(row.place): names no test that exists; name one, or write 'no test: REASON'")
            }
            for (span, name) in zip(row.spans, named)
            where !span.contains("/") && !span.contains(" ") && !Self.tests.contains(name) {
                Issue.record("\(row.place): \(span) is no test; name it as it is")
            }
        }
    }
}

extension Substring {
    fileprivate func trimmingSuffix(_ isLeft: (Character) -> Bool) -> Substring {
        var rest = self
        while let last = rest.last, isLeft(last) { rest.removeLast() }
        return rest
    }
}
