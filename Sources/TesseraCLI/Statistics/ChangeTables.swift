import Core
import Engine

/// A report of changes as tables that fit a width.
struct ChangeTables {
    let report: ChangeReport
    /// Columns of the terminal.
    let width: Int

    /// - Parameter listsTensors: whether each tensor has a row.
    func text(listsTensors: Bool) -> String {
        var lines = models()
        if report.models.count > 1 {
            lines += [""] + matrix("COSINE") { Self.number(report.total.changes.cosine($0, $1), places: 3) }
            lines += [""] + matrix("SAME SIGN") { Self.percent(report.total.changes.signAgreement($0, $1)) }
        }
        let isOneStack = Set(report.layers.map(\.stack)).count == 1
        lines += breakdown("LAYER", report.layers) { group in isOneStack ? group.layer.map { "\($0)" } ?? "" : group.name }
        lines += breakdown("MODULE", report.modules, \.name)
        if listsTensors { lines += breakdown("TENSOR", report.tensors, \.name) }
        return lines.joined(separator: "\n")
    }

    private func models() -> [String] {
        let changes = report.total.changes
        var table = TextTable([
            ("", .right), ("MODEL", .left), ("NORM", .right), ("CHANGE", .right), ("MOVED", .right), ("LARGEST", .right),
        ])
        for (index, label) in report.labels.enumerated() {
            table.add([
                "\(index + 1)", label, Quantity.significant(changes.norm(of: index)),
                Self.percent(changes.relativeChange(of: index)),
                Self.percent(changes.movedShare(of: index)),
                changes.largestChange(of: index).map { Quantity.significant($0) } ?? "–",
            ])
        }
        return [
            "base \(report.base.printable): norm \(Quantity.significant(changes.baseNorm)), \(changes.elements) entries in "
                + "\(report.tensors.count) tensors", "",
        ] + table.lines
    }

    /// One row for each group, with the relative change of each model.
    private func breakdown(
        _ title: String, _ groups: [ChangeReport.Group], _ name: (ChangeReport.Group) -> String
    ) -> [String] {
        guard !groups.isEmpty else { return [] }
        let rows = groups.map { group in
            [name(group).printable] + report.models.indices.map { Self.percent(group.changes.relativeChange(of: $0)) }
        }
        return [""] + fitted(title, rows)
    }

    private func matrix(_ title: String, _ value: (Int, Int) -> String) -> [String] {
        let models = report.models.indices
        let rows = models.map { first in
            [heads[first]] + models.map { second in second == first ? "" : value(first, second) }
        }
        return fitted(title, rows)
    }

    /// What the columns of the models are called: their names if they all fit, else their numbers.
    private var heads: [String] {
        let labels = report.labels.map(\.printable)
        let wanted = labels.reduce(0) { $0 + max($1.count, Self.cell) + 2 }
        return wanted + Self.firstColumn <= width ? labels : labels.indices.map { "\($0 + 1)" }
    }

    /// The width of a number, and that of a usual first column.
    private static let cell = 7, firstColumn = 24

    /// A table of one column of names, and one for each model as far as the width allows. Where long names leave no room for all
    /// models, the ends of the names are shown.
    private func fitted(_ title: String, _ rows: [[String]]) -> [String] {
        let all = [[title] + heads] + rows
        let widths = all[0].indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        let numbers = widths.dropFirst().reduce(0) { $0 + $1 + 2 }
        let names = max(min(widths[0], Self.firstColumn), min(widths[0], width - numbers))
        var columns = 1, used = names
        while columns < widths.count, columns < 2 || used + 2 + widths[columns] <= width {
            used += 2 + widths[columns]
            columns += 1
        }
        var table = TextTable([(title, .left)] + heads.prefix(columns - 1).map { ($0, .right) })
        for row in rows {
            let name = row[0].count <= names ? row[0] : "…\(row[0].suffix(names - 1))"
            table.add([name] + row[1..<columns])
        }
        let rest = widths.count - columns
        return table.lines + (rest > 0 ? ["and \(rest) more \(rest == 1 ? "model" : "models"): see --csv or --json"] : [])
    }

    private static func percent(_ share: Double?) -> String { share.map { "\(Quantity.significant($0 * 100)) %" } ?? "–" }

    private static func number(_ value: Double?, places: Int) -> String {
        value.map { Quantity.decimal($0, places: places) } ?? "–"
    }
}
