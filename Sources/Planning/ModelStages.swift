import Core
import Operators
import Recipes
import Work

/// The stages before a merge, in which a method measures the models as wholes (`MergeMethod.modelRounds`).
enum ModelStages {
    enum Next {
        /// What to measure in the next stage.
        case measure([TensorWork])
        /// All is known: the tensors of each point, with the statistics among their values.
        case merge([[PlannedTensor]])
    }

    /// - Parameters:
    ///   - planned: the tensors; in a sweep, those of each point. Points with the same measured values are measured at once,
    ///     others one after the other.
    ///   - statistics: of each stage so far.
    /// - Throws: as `ModelFold.fold`; `badData` for models without layers where a method needs some, `internal` for more
    ///   stages than the method has.
    static func next(
        _ planned: [[PlannedTensor]], _ method: any MergeMethod.Type, after statistics: [[ExactText: TensorStatistics]]
    ) throws(TesseraError) -> Next {
        var points = planned, statistics = statistics[...]
        for group in measuredTogether(planned, method) {
            if let work = try measure(&points, group, method, &statistics) { return .measure(work) }
        }
        guard statistics.isEmpty else { throw TesseraError(.internal, "there are statistics of more stages than the job has") }
        return .merge(points)
    }

    /// The points of each set of values that the statistics may depend on, in their order.
    private static func measuredTogether(_ planned: [[PlannedTensor]], _ method: any MergeMethod.Type) -> [[Int]] {
        guard planned.count > 1 else { return [Array(planned.indices)] }
        var groups: [[Int]] = [], positions: [[ParameterValues?]: Int] = [:]
        for (point, tensors) in planned.enumerated() {
            let values = tensors.map { $0.method == method.name ? $0.values.measured(by: method) : nil }
            if let position = positions[values] {
                groups[position].append(point)
            } else {
                positions[values] = groups.count
                groups.append([point])
            }
        }
        return groups
    }

    /// Takes the statistics of the stages in which these points are measured, and puts what was found among their values.
    ///
    /// - Returns: the work of the first stage without statistics; `nil` when all is known.
    private static func measure(
        _ points: inout [[PlannedTensor]], _ group: [Int], _ method: any MergeMethod.Type,
        _ statistics: inout ArraySlice<[ExactText: TensorStatistics]>
    ) throws(TesseraError) -> [TensorWork]? {
        let tensors = points[group[0]]
        var rounds: [[[ModelStatistic]]] = []
        for tensor in tensors { rounds.append(try tensor.modelRounds(method)) }
        guard rounds.contains(where: { !$0.isEmpty }) else { return nil }
        let layers = tensors.map { ModelFold.Layer(of: $0.name) }
        if rounds.contains(where: { $0.joined().contains { $0.scope == .layers } }) {
            for index in tensors.indices where layers[index] == nil && tensors[index].method == method.name {
                rounds[index] = []
                for point in group { points[point][index].values.shared[ModelStatistic.ownLayer] = .number(-1) }
            }
            guard rounds.contains(where: { !$0.isEmpty }) else {
                throw TesseraError(
                    .badData, "'\(method.name)' compares layers, and no tensor that it merges lies in one",
                    advice: "choose another method, or merge a model whose tensors are numbered by layer, as in 'layers.0.weight'"
                )
            }
        }
        for round in 0..<(rounds.map(\.count).max() ?? 0) {
            let own = tensors.indices.filter { rounds[$0].count > round }
            let parts = own.map { index in
                ModelFold.Part(
                    name: tensors[index].name, shape: tensors[index].shape, models: tensors[index].models,
                    base: tensors[index].base, layer: layers[index], statistics: rounds[index][round])
            }
            var fold = ModelFold(round: round, parts)
            while true {
                let stages = parts.compactMap { fold.stage(of: $0) }
                guard stages.count == parts.count else { break }
                guard let found = statistics.popFirst() else {
                    return zip(own, stages).map { points[group[0]][$0].measurement($1) }
                }
                try fold.fold { found[ExactText($0)]?.merge }
            }
            for (index, part) in zip(own, parts) {
                let values = fold.values(of: part)
                for point in group { points[point][index].values.add(values, ownLayer: fold.place(of: part)) }
            }
        }
        return nil
    }
}

extension PlannedTensor {
    /// What the method measures of the tensor; nothing where it does not merge the tensor.
    fileprivate func modelRounds(_ own: any MergeMethod.Type) throws(TesseraError) -> [[ModelStatistic]] {
        guard method == own.name else { return [] }
        let inputs = TensorInputs(count: sources.count, base: base, randomKey: randomKey ?? 0, given: given.map(\.role))
        return try own.init(values, inputs: inputs).modelRounds(of: shape)
    }
}

extension ParameterValues {
    /// The values that the method's statistics may depend on.
    fileprivate func measured(by method: any MergeMethod.Type) -> ParameterValues {
        var values = self
        for name in method.unmeasured.union(method.scale.map { [$0] } ?? []) {
            values.shared[name] = nil
            for source in values.perInput.indices { values.perInput[source][name] = nil }
        }
        return values
    }

    /// Adds what was found of each source.
    fileprivate mutating func add(_ found: [[String: ParameterValue]], ownLayer: Int?) {
        for (source, values) in found.enumerated() { perInput[source].merge(values) { _, found in found } }
        if found.contains(where: { $0.values.contains { if case .numbers = $0 { true } else { false } } }), let ownLayer {
            shared[ModelStatistic.ownLayer] = .number(Double(ownLayer))
        }
    }
}

extension ModelFold.Layer {
    /// - Returns: `nil` for a tensor outside the layers.
    fileprivate init?(of name: String) {
        guard let layer = TensorName(name).layer else { return nil }
        self.init(stack: layer.prefix, index: layer.index)
    }
}
