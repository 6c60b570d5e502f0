import Core
import Operators
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
    ///   - planned: the tensors; in a sweep, those of each point. All points are measured at once.
    ///   - statistics: of each stage so far.
    /// - Throws: as `ModelFold.fold`; `badData` for a sweep whose points would have to be measured one by one, `internal` for
    ///   more stages than the method has.
    static func next(
        _ planned: [[PlannedTensor]], _ method: any MergeMethod.Type, after statistics: [[ExactText: TensorStatistics]]
    ) throws(TesseraError) -> Next {
        var points = planned, statistics = statistics[...]
        let tensors = planned[0]
        var rounds: [[[ModelStatistic]]] = []
        for tensor in tensors {
            guard tensor.method == method.name else {
                rounds.append([])
                continue
            }
            let inputs = TensorInputs(
                count: tensor.sources.count, base: tensor.base, randomKey: tensor.randomKey ?? 0, given: tensor.given.map(\.role))
            rounds.append(try method.init(tensor.values, inputs: inputs).modelRounds(of: tensor.shape))
        }
        for (index, tensor) in tensors.enumerated() where !rounds[index].isEmpty {
            guard planned.allSatisfy({ $0[index].hasValues(of: tensor) }) else {
                throw TesseraError(
                    .badData, "'\(method.name)' measures the models as wholes, once for all points of a sweep",
                    advice: method.scale.map { "sweep '\($0)', or write a recipe for each value" }
                        ?? "write a recipe for each value")
            }
        }
        for round in 0..<(rounds.map(\.count).max() ?? 0) {
            let own = tensors.indices.filter { rounds[$0].count > round }
            let parts = own.map { index in
                ModelFold.Part(
                    name: tensors[index].name, shape: tensors[index].shape, models: tensors[index].models,
                    base: tensors[index].base, statistics: rounds[index][round])
            }
            var fold = ModelFold(round: round, parts)
            while true {
                let stages = parts.compactMap { fold.stage(of: $0) }
                guard stages.count == parts.count else { break }
                guard let found = statistics.popFirst() else {
                    return .measure(zip(own, stages).map { points[0][$0].measurement($1) })
                }
                try fold.fold { found[ExactText($0)]?.merge }
            }
            for index in own {
                for (name, numbers) in fold.numbers {
                    for (source, model) in tensors[index].models.enumerated() {
                        for point in points.indices {
                            points[point][index].values.perInput[source][name] = numbers[model].map(ParameterValue.number)
                        }
                    }
                }
            }
        }
        guard statistics.isEmpty else { throw TesseraError(.internal, "there are statistics of more stages than the job has") }
        return .merge(points)
    }
}
