import Core
import Engine
import Planning

/// How far models moved from their base, for the whole model, its layers, its kinds of modules and its tensors.
struct ChangeReport {
    struct Group {
        enum Scope: String {
            case model, layer, module, tensor
        }

        let scope: Scope
        let name: String
        /// Of a layer, or of a tensor in one.
        var stack: String?
        var layer: Int?
        fileprivate(set) var changes: ModelChanges
    }

    /// A kind of module in one layer, for the plot.
    struct Cell {
        let stack: String
        let layer: Int
        let module: String
        let isMatrix: Bool
        fileprivate(set) var changes: ModelChanges
    }

    let base: String
    let models: [String]
    let tensors: [Group]
    let total: Group
    /// In natural order.
    let layers: [Group]
    /// In the order in which they come in the model.
    let modules: [Group]
    let cells: [Cell]
    let leftOut: [ModelMeasurement.LeftOut]

    /// - Parameter references: the base, then the models.
    init(references: [String], _ measurement: ModelMeasurement) {
        base = references[0]
        models = Array(references.dropFirst())
        leftOut = measurement.leftOut
        var total = ModelChanges(models: models.count)
        var tensors: [Group] = [], layers = Gathered<Group>(), modules = Gathered<Group>(), cells = Gathered<Cell>()
        for tensor in measurement.tensors {
            let place = TensorPlace(tensor.name), changes = tensor.changes
            total.add(changes)
            tensors.append(Group(scope: .tensor, name: tensor.name, stack: place.stack, layer: place.layer, changes: changes))
            modules.add(place.module, Group(scope: .module, name: place.module, changes: changes)) { $0.changes.add(changes) }
            guard let stack = place.stack, let layer = place.layer else { continue }
            let name = "\(stack).\(layer)"
            layers.add(name, Group(scope: .layer, name: name, stack: stack, layer: layer, changes: changes)) {
                $0.changes.add(changes)
            }
            let cell = Cell(stack: stack, layer: layer, module: place.module, isMatrix: tensor.isMatrix, changes: changes)
            cells.add("\(name).\(place.module)", cell) { $0.changes.add(changes) }
        }
        self.tensors = tensors
        self.total = Group(scope: .model, name: "model", changes: total)
        self.layers = layers.values.sorted { $0.name.precedesNaturally($1.name) }
        self.modules = modules.values
        self.cells = cells.values
    }

    /// Names of the models that are short enough for a table: their last components, as many as tell them apart.
    var labels: [String] {
        for count in 1..<4 {
            let short = models.map { Self.end(of: $0, components: count) }
            if Set(short).count == short.count { return short }
        }
        return models
    }

    private static func end(of model: String, components: Int) -> String {
        let model = model.last == "/" && model.count > 1 ? String(model.dropLast()) : model
        let separators = model.indices.filter { "/#+".contains(model[$0]) && $0 > model.startIndex }
        guard separators.count >= components else { return model }
        return String(model[model.index(after: separators[separators.count - components])...])
    }
}

/// Values by name, in the order in which the names came first.
private struct Gathered<Value> {
    private(set) var values: [Value] = []
    private var positions: [String: Int] = [:]

    mutating func add(_ name: String, _ first: Value, _ join: (inout Value) -> Void) {
        if let position = positions[name] { return join(&values[position]) }
        positions[name] = values.count
        values.append(first)
    }
}

// MARK: For programs

extension ChangeReport: Encodable {
    private enum CodingKeys: String, CodingKey { case base, models, total, layers, modules, tensors, leftOut }

    private struct Named: Encodable {
        struct Model: Encodable {
            let model: String
            let norm, relativeChange, movedShare, largestChange: Double?
        }

        struct Pair: Encodable {
            let first, second: String
            let cosine, signAgreement: Double?
        }

        let name: String
        let stack: String?
        let layer: Int?
        let elements: Int
        let baseNorm: Double?
        let models: [Model]
        let pairs: [Pair]

        init(_ group: Group, models names: [String]) {
            let changes = group.changes
            func finite(_ value: Double) -> Double? { value.isFinite ? value : nil }
            name = group.name
            stack = group.stack
            layer = group.layer
            elements = changes.elements
            baseNorm = finite(changes.baseNorm)
            models = names.enumerated().map { index, model in
                Model(
                    model: model, norm: finite(changes.norm(of: index)), relativeChange: changes.relativeChange(of: index),
                    movedShare: changes.movedShare(of: index), largestChange: changes.largestChange(of: index))
            }
            pairs = ChangeReport.pairs(names.count).map { first, second in
                Pair(
                    first: names[first], second: names[second], cosine: changes.cosine(first, second),
                    signAgreement: changes.signAgreement(first, second))
            }
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        func named(_ groups: [Group]) -> [Named] { groups.map { Named($0, models: models) } }
        try container.encode(base, forKey: .base)
        try container.encode(models, forKey: .models)
        try container.encode(Named(total, models: models), forKey: .total)
        try container.encode(named(layers), forKey: .layers)
        try container.encode(named(modules), forKey: .modules)
        try container.encode(named(tensors), forKey: .tensors)
        try container.encode(leftOut, forKey: .leftOut)
    }

    /// Each two of so many models.
    static func pairs(_ models: Int) -> [(Int, Int)] {
        (0..<models).flatMap { first in (first..<models).dropFirst().map { (first, $0) } }
    }

    /// One row for each group and model, and one for each group and two models, in which `other` is not empty (RFC 4180). Numbers
    /// are exact.
    var csv: String {
        let columns = [
            "scope", "name", "model", "other", "elements", "base_norm", "norm", "relative_change", "moved_share",
            "largest_change", "cosine", "sign_agreement",
        ]
        var rows = [columns]
        func number(_ value: Double?) -> String { value.map { "\($0)" } ?? "" }
        for group in [total] + layers + modules + tensors {
            let changes = group.changes, head = [group.scope.rawValue, group.name]
            for (index, model) in models.enumerated() {
                rows.append(
                    head + [
                        model, "", "\(changes.elements)", number(changes.baseNorm), number(changes.norm(of: index)),
                        number(changes.relativeChange(of: index)), number(changes.movedShare(of: index)),
                        number(changes.largestChange(of: index)), "", "",
                    ])
            }
            for (first, second) in Self.pairs(models.count) {
                rows.append(
                    head + [models[first], models[second], "\(changes.elements)", "", "", "", "", ""] + [
                        number(changes.cosine(first, second)), number(changes.signAgreement(first, second)),
                    ])
            }
        }
        return rows.map { $0.map(Self.field).joined(separator: ",") }.joined(separator: "\n")
    }

    private static func field(_ text: String) -> String {
        guard text.contains(where: { ",\"\n\r".contains($0) }) else { return text }
        return "\"\(text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\""))\""
    }
}
