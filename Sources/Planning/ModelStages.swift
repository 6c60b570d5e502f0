import Core
import Operators
import Work

/// The stages before a merge, in which a method measures the models as wholes (`MergeMethod.modelRounds`).
enum ModelStages {
    enum Next {
        /// What to measure in the next stage.
        case measure([TensorWork])
        /// All is known: the tensors, with the statistics among their values.
        case merge([PlannedTensor])
    }

    /// - Parameter statistics: of each stage so far.
    /// - Throws: as `ModelFold.fold`; `internal` for more stages than the method has.
    static func next(
        _ planned: [PlannedTensor], _ method: any MergeMethod.Type, after statistics: [[ExactText: TensorStatistics]]
    ) throws(TesseraError) -> Next {
        var tensors = planned, statistics = statistics[...]
        let models = tensors.map { numbered($0.models) }
        var rounds: [[[ModelStatistic]]] = []
        for tensor in tensors {
            guard tensor.method == method.name else {
                rounds.append([])
                continue
            }
            let inputs = TensorInputs(count: tensor.sources.count, base: tensor.base, randomKey: tensor.randomKey ?? 0)
            rounds.append(try method.init(tensor.values, inputs: inputs).modelRounds(of: tensor.shape))
        }
        for round in 0..<(rounds.map(\.count).max() ?? 0) {
            let own = tensors.indices.filter { rounds[$0].count > round }
            let parts = own.map { index in
                ModelFold.Part(
                    name: tensors[index].name, shape: tensors[index].shape, models: models[index],
                    base: tensors[index].base, statistics: rounds[index][round])
            }
            var fold = ModelFold(round: round, parts)
            while true {
                let stages = parts.compactMap { fold.stage(of: $0) }
                guard stages.count == parts.count else { break }
                guard let found = statistics.popFirst() else {
                    return .measure(zip(own, stages).map { tensors[$0].measurement($1) })
                }
                try fold.fold { found[ExactText($0)]?.merge }
            }
            for index in own {
                for (name, numbers) in fold.numbers {
                    for (source, model) in models[index].enumerated() {
                        tensors[index].values.perInput[source][name] = numbers[model].map(ParameterValue.number)
                    }
                }
            }
        }
        guard statistics.isEmpty else { throw TesseraError(.internal, "there are statistics of more stages than the job has") }
        return .merge(tensors)
    }

    /// Tells sources apart that are the same model, which a recipe may name more than once.
    private static func numbered(_ models: [Int]) -> [Int] {
        var seen: [Int: Int] = [:]
        return models.map { model in
            let number = seen[model, default: 0]
            seen[model] = number + 1
            return number << 32 | model
        }
    }
}
