import Core
import Planning

/// An adapter as `inspect` shows it.
struct AdapterListing {
    private let adapter: AdapterSummary

    init(_ adapter: AdapterSummary) { self.adapter = adapter }

    func lines(_ widths: OutputWidths) -> [String] {
        var table = TextTable([("TENSOR", .left), ("DTYPE", .left), ("SHAPE", .left), ("SIZE", .right)])
        for tensor in adapter.tensors.sorted(by: { $0.name.precedesNaturally($1.name) }) {
            table.add([tensor.name, tensor.dtype.rawValue, shapeText(tensor.shape), Quantity.bytes(tensor.bytes)])
        }
        let elements = adapter.tensors.reduce(0) { $0 + $1.shape.reduce(1, *) }
        let end = "\(adapter.tensors.count) tensors, \(elements) elements, \(Quantity.bytes(adapter.bytes)) in \(adapter.file)"
        return facts.flatMap { widths.labelled($0, $1.printable, column: 9) } + [""] + table.lines(fitting: widths.table)
            + ["", end]
    }

    private var facts: [(label: String, text: String)] {
        let kinds = [adapter.usesDoRA ? "DoRA" : nil, adapter.usesRankStabilisation ? "rank-stabilised" : nil].compactMap(\.self)
        let ranks = adapter.ranks.isEmpty ? [adapter.rank].compactMap(\.self) : adapter.ranks
        let facts: [(String, [String])] = [
            ("kind", [adapter.kind] + kinds), ("base", [adapter.baseModel].compactMap(\.self)), ("rank", ranks.map(String.init)),
            ("alpha", [adapter.alpha].compactMap(\.self).map { Quantity.significant($0) }), ("targets", adapter.targets),
            ("whole", adapter.savedModules),
        ]
        return facts.filter { !$1.isEmpty }.map { ($0, $1.joined(separator: ", ")) }
    }
}
