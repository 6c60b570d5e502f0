package import Core
import TensorKernels

/// Merging by Fisher information that the recipe gives (arXiv 2111.09832): `out = Σ cₜ(Fₜ + ε)·xₜ / Σ cₜ(Fₜ + ε)`.
///
/// With `normalize`, `cₜ = wₜ/(‖Fₜ‖ + 10⁻⁶)` with the norm over the whole model; else `cₜ = wₜ`. A base takes no part.
package struct Fisher: MergeMethod {
    package static let name = "fisher"
    package static let summary = "Averages the models, each entry weighted by its Fisher information."
    package static let inputs = InputContract(base: .optional, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .tensors(name, .perModel, of: .everyTensor, "The file of this model's diagonal Fisher information."),
        .number("weight", .perModel, default: 1, in: 0...1e30, "Scales this model's Fisher information."),
        .flag("normalize", default: true, "Divide each model's Fisher information by its norm over the whole model."),
        .number("epsilon", .shared, default: 1e-6, in: 1e-30...1e30, "Added to the Fisher information of each entry."),
    ]

    package static let unmeasured: Set = ["weight", "epsilon"]

    private static let squaredNorm = "squared_fisher"
    private static let normRidge = 1e-6

    private let models: [Int]
    private let isNormalized: Bool
    /// `nil` before the norms have been measured.
    private let coefficients: [Double]?
    private let epsilon: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        models = inputs.models
        epsilon = try values.number("epsilon")
        isNormalized = try values.flag("normalize")
        let weights = try models.map { (model) throws(TesseraError) in try values.number("weight", ofInput: model) }
        let squares = try values.statistics(Self.squaredNorm, of: models)
        let scales =
            isNormalized
            ? zip(weights, squares ?? models.map { _ in 1 }).map { $0 / ($1.squareRoot() + Self.normRidge) } : weights
        let total = scales.reduce(0, +)
        guard total > 0, total.isFinite else {
            throw TesseraError(.badData, "no model has a weight above 0", advice: "set 'weight' above 0 for one of the models")
        }
        coefficients = isNormalized && squares == nil ? nil : scales.map { $0 / total }
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 1, memory: MemoryNeed(perThread: 2 * MemoryLayout<Double>.stride * FixedTree.tileElements))
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        isNormalized ? [[ModelStatistic(Self.squaredNorm, .sum)]] : []
    }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        let given = try models.map { try tensor.givenIndex(Self.name, ofInput: $0) }
        let norms = try tensor.sums(models.count) { tile, sums in
            for (position, index) in given.enumerated() {
                let information = try Self.information(index, of: tile, in: tensor)
                for element in 0..<tile.count { sums[position] += Double(information[element]) * Double(information[element]) }
            }
        }
        var all = [Double](repeating: 0, count: tensor.sources.count)
        for (model, norm) in zip(models, norms) { all[model] = norm }
        tensor.report(Self.squaredNorm, all)
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard let coefficients else { throw TesseraError.notMeasured }
        let given = try models.map { try tensor.givenIndex(Self.name, ofInput: $0) }
        try tensor.emit { tile, out in
            var sums = [Double](repeating: 0, count: tile.count), weights = sums
            for (position, model) in models.enumerated() {
                let values = try tile.source(model), coefficient = coefficients[position]
                let information = try Self.information(given[position], of: tile, in: tensor)
                for element in 0..<tile.count {
                    let weight = coefficient * (Double(information[element]) + epsilon)
                    sums[element] += weight * Double(values[element])
                    weights[element] += weight
                }
            }
            for element in 0..<tile.count { out[element] = Float(sums[element] / weights[element]) }
        }
    }

    /// - Throws: `badData` for a number that is no Fisher information.
    private static func information(
        _ index: Int, of tile: Tile, in tensor: TensorPasses
    ) throws -> UnsafePointer<Float> {
        let values = try tile.given(index)
        for element in 0..<tile.count where !(values[element] >= 0 && values[element] < .infinity) {
            throw tensor.given[index].refusal(
                "has \(values[element]) at element \(tile.range.lowerBound + element); "
                    + "Fisher information is 0 or above, and finite",
                advice: "compute the file again: the mean of squared gradients")
        }
        return UnsafePointer(values)
    }
}
