import Core
import Operators
import Work

/// What an analysis stage found about each model as a whole (`MergeMethod.modelSums`).
struct ModelSums {
    /// By name, then by the model's index in the recipe.
    private var sums: [String: [Int: Double]] = [:]

    /// Adds the statistics up in the order of the specs, so that the sums do not depend on who found them when.
    ///
    /// - Parameter measured: the tensors that the stage looked at.
    /// - Throws: `internal` for statistics that are not those of the tensors; what is wrong with the specs themselves.
    init(
        _ planner: TensorPlanner, _ specs: [OutputTensorSpec], measured: Set<ExactText>, statistics: [ExactText: TensorStatistics]
    ) throws {
        for spec in specs where measured.contains(ExactText(spec.name)) {
            let found = statistics[ExactText(spec.name)]?.merge
            let models = try planner.find(spec).spec.sources.map(\.model)
            for name in planner.method.modelSums {
                guard let numbers = found?.numbers[name], numbers.count == models.count,
                    numbers.allSatisfy({ $0 >= 0 && $0.isFinite })
                else {
                    throw TesseraError(.internal, "the analysis stage has no '\(name)' for this tensor", tensor: spec.name)
                }
                for (model, number) in zip(models, numbers) { sums[name, default: [:]][model, default: 0] += number }
            }
        }
    }

    func value(_ name: String, ofModel model: Int) -> Double? { sums[name]?[model] }
}
