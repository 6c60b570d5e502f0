import Core
import Engine
import Glibc

/// A report of changes as a drawing: the relative change of each kind of matrix over the layers, on one scale, and the cosines
/// between the models' task vectors.
struct ChangePlot {
    private let report: ChangeReport
    private let panels: [Panel]
    /// Kinds of matrices that have no panel.
    private let rest: Int
    private let scale: Scale

    private struct Panel {
        let title: String
        let layers: ClosedRange<Int>
        /// For each model, the layers and their relative changes.
        let curves: [[(layer: Int, change: Double)]]
    }

    /// Where a value stands between the lowest and the highest, 0...1.
    private struct Scale {
        let isLogarithmic: Bool
        let low: Double
        let high: Double

        /// Linear from 0, unless the values lie too far apart for that.
        init(_ values: [Double]) {
            let positive = values.filter { $0 > 0 }, highest = positive.max() ?? 1, lowest = positive.min() ?? highest
            isLogarithmic = highest / lowest > 30
            low = isLogarithmic ? pow(10, log10(lowest).rounded(.down)) : 0
            let decade = pow(10, log10(highest).rounded(.down))
            high =
                isLogarithmic
                ? pow(10, log10(highest).rounded(.up))
                : [1, 2, 3, 4, 5, 6, 8, 10].map { $0 * decade }
                    .first { $0 >= highest } ?? highest
        }

        func position(_ value: Double) -> Double {
            isLogarithmic ? log(max(value, low) / low) / log(high / low) : value / high
        }

        var ticks: [Double] {
            guard isLogarithmic else { return [0, high / 2, high] }
            let decades = Int(log10(high / low).rounded()), step = max(1, (decades + 2) / 3)
            return stride(from: 0, through: decades, by: step).map { low * pow(10, Double($0)) }
        }
    }

    private static let columns = 4, panelLimit = 24
    private static let panelWidth = 210.0, panelHeight = 96.0, gapX = 22.0, gapY = 46.0, left = 64.0, right = 24.0
    private static let width = left + Double(columns) * (panelWidth + gapX) - gapX + right
    /// Told apart by people with any colour vision (Okabe and Ito, 2008); further models repeat them in dashes.
    private static let colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#888888"]

    init(_ report: ChangeReport) {
        self.report = report
        // Biases and norms move on another scale, and hold few of the entries.
        let matrices = report.cells.filter(\.isMatrix), drawn = matrices.isEmpty ? report.cells : matrices
        let isOneStack = Set(drawn.map(\.stack)).count == 1
        var kinds: [String] = [], cells: [String: [ChangeReport.Cell]] = [:]
        for cell in drawn {
            let title = isOneStack ? cell.module : "\(cell.stack) \(cell.module)"
            if cells[title] == nil { kinds.append(title) }
            cells[title, default: []].append(cell)
        }
        // The largest kinds, in the order of the model.
        let largest = kinds.enumerated().sorted { left, right in
            func size(_ kind: String) -> Int { (cells[kind] ?? []).reduce(0) { $0 + $1.changes.elements } }
            let sizes = (size(left.element), size(right.element))
            return sizes.0 == sizes.1 ? left.offset < right.offset : sizes.0 > sizes.1
        }
        let shown = largest.prefix(Self.panelLimit).sorted { $0.offset < $1.offset }.map(\.element)
        rest = kinds.count - shown.count
        let layers = drawn.map(\.layer), range = (layers.min() ?? 0)...(layers.max() ?? 0)
        panels = shown.map { kind in
            let own = (cells[kind] ?? []).sorted { $0.layer < $1.layer }
            let curves = report.models.indices.map { model in
                own.compactMap { cell in cell.changes.relativeChange(of: model).map { (cell.layer, $0) } }
            }
            return Panel(title: kind, layers: range, curves: curves)
        }
        scale = Scale(panels.flatMap { $0.curves.joined().map(\.change) })
    }

    var document: String {
        let rows = (panels.count + Self.columns - 1) / Self.columns, legendRows = (report.models.count + 3) / 4
        let top = 64 + 18 * Double(legendRows)
        let mapTop = top + Double(rows) * (Self.panelHeight + Self.gapY) + (rest > 0 ? 20 : 0)
        let cell = 46.0, mapHeight = report.models.count > 1 ? 70 + cell * Double(report.models.count) : 0
        var drawing = SVG(width: Self.width, height: mapTop + mapHeight + 12)
        drawing.text("How far the models moved from \(report.base)", x: 20, y: 28, style: "class=\"title\"")
        drawing.text(
            "‖τ‖ / ‖base‖ over the layers, one panel for each kind of matrix, "
                + (scale.isLogarithmic ? "on one logarithmic scale" : "on one scale"), x: 20, y: 46)
        addLegend(to: &drawing)
        for (index, panel) in panels.enumerated() {
            let x = Self.left + Double(index % Self.columns) * (Self.panelWidth + Self.gapX)
            let y = top + Double(index / Self.columns) * (Self.panelHeight + Self.gapY) + 24
            add(panel, x: x, y: y, hasTicks: index % Self.columns == 0, to: &drawing)
        }
        if rest > 0 { drawing.text("and \(rest) more kinds of matrices, which are smaller", x: Self.left, y: mapTop - 4) }
        if report.models.count > 1 { addCosines(top: mapTop, cell: cell, to: &drawing) }
        return drawing.document(title: "How far \(report.models.count) models moved from \(report.base)")
    }

    private func addLegend(to drawing: inout SVG) {
        for (index, label) in report.labels.enumerated() {
            let x = 20 + Double(index % 4) * 230, y = 68 + 18 * Double(index / 4)
            drawing.line([(x, y - 4), (x + 22, y - 4)], style: Self.stroke(index))
            drawing.text(Self.fitted(label, 30), x: x + 28, y: y)
        }
    }

    private static func stroke(_ model: Int) -> String {
        let dash = model / colours.count
        return "fill=\"none\" stroke-width=\"1.6\" stroke=\"\(colours[model % colours.count])\""
            + (dash > 0 ? " stroke-dasharray=\"\(2 + 3 * dash) 3\"" : "")
    }

    private func add(_ panel: Panel, x: Double, y: Double, hasTicks: Bool, to drawing: inout SVG) {
        let bottom = y + Self.panelHeight
        drawing.text(Self.fitted(panel.title, 34), x: x, y: y - 7)
        for tick in scale.ticks {
            let height = bottom - scale.position(tick) * Self.panelHeight
            drawing.line([(x, height), (x + Self.panelWidth, height)], style: "class=\"axis\"")
            if hasTicks {
                drawing.text(
                    "\(Quantity.significant(tick * 100, digits: 2)) %", x: x - 6, y: height + 4, anchor: .end,
                    style: "class=\"small\"")
            }
        }
        let (first, last) = (panel.layers.lowerBound, panel.layers.upperBound)
        drawing.text("\(first)", x: x, y: bottom + 13, style: "class=\"small\"")
        if last > first {
            drawing.text("\(last)", x: x + Self.panelWidth, y: bottom + 13, anchor: .end, style: "class=\"small\"")
        }
        drawing.text("layer", x: x + Self.panelWidth / 2, y: bottom + 13, anchor: .middle, style: "class=\"small\"")
        for (model, curve) in panel.curves.enumerated() {
            let points = curve.map { point in
                let share = last > first ? Double(point.layer - first) / Double(last - first) : 0.5
                return (x: x + share * Self.panelWidth, y: bottom - scale.position(point.change) * Self.panelHeight)
            }
            if points.count > 1 {
                drawing.line(points, style: Self.stroke(model))
            } else if let point = points.first {
                drawing.dot(x: point.x, y: point.y, style: "fill=\"\(Self.colours[model % Self.colours.count])\"")
            }
        }
    }

    /// A heat map of all pairs. The strongest colour is that of the cosine that is farthest from 0, if that is far at all.
    private func addCosines(top: Double, cell: Double, to drawing: inout SVG) {
        let models = report.models.indices, changes = report.total.changes
        let strongest = ChangeReport.pairs(models.count).compactMap { changes.cosine($0, $1)?.magnitude }
            .reduce(0.1, max)
        let x = Self.left + 96, y = top + 58
        drawing.text("Cosines between the task vectors", x: 20, y: top + 18, style: "class=\"title\"")
        drawing.text(
            "blue: the same direction; orange: opposite; the strongest colour is \(Quantity.significant(strongest, digits: 2))",
            x: 20, y: top + 35)
        for row in models {
            let middle = y + (Double(row) + 0.5) * cell + 4
            drawing.text("\(row + 1)  \(Self.fitted(report.labels[row], 18))", x: x - 8, y: middle, anchor: .end)
            for column in models {
                let left = x + Double(column) * cell, upper = y + Double(row) * cell
                let cosine = changes.cosine(row, column)
                let depth = row == column ? 0 : 0.7 * (cosine?.magnitude ?? 0) / strongest
                drawing.rectangle(
                    x: left, y: upper, width: cell - 2, height: cell - 2,
                    style: "class=\"axis\" style=\"fill:\((cosine ?? 0) < 0 ? "#D55E00" : "#0072B2");fill-opacity:"
                        + "\(Quantity.decimal(depth, places: 2))\"")
                drawing.text(
                    cosine.map { Quantity.decimal($0, places: 2) } ?? "–", x: left + cell / 2 - 1, y: middle, anchor: .middle)
            }
        }
        for column in models {
            drawing.text(
                "\(column + 1)", x: x + (Double(column) + 0.5) * cell, y: y - 4, anchor: .middle, style: "class=\"small\"")
        }
    }

    /// The end of a name tells more than its beginning.
    private static func fitted(_ text: String, _ limit: Int) -> String {
        text.count <= limit ? text : "…\(text.suffix(limit - 1))"
    }
}
