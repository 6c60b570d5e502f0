package import Core
import TensorKernels

/// Task arithmetic with coefficients that were learned for each tensor (aTLAS, arXiv 2407.02880): `out = b + Σ cₜ·dₜ`.
///
/// The recipe gives the coefficients. Where a tensor has several of each task (aTLAS×K), a partition says for each entry which
/// one counts.
package struct Atlas: MergeMethod {
    package static let name = "atlas"
    package static let summary = "Adds the task vectors with coefficients of their own for each tensor."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .coefficients(coefficients, "The file of the coefficients of each task and tensor."),
        .tensors(partition, .shared, of: .partitions, "The file that says which coefficient counts for which entry."),
    ]

    private static let coefficients = "coefficients"
    private static let partition = "partition"

    private let base: Int
    private let models: [Int]
    private let coefficients: [[Double]]
    private let hasPartition: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        hasPartition = inputs.given(Self.partition) != nil
        coefficients = try models.map { (model) throws(TesseraError) in
            try values.optionalNumbers(Self.coefficients, ofInput: model) ?? []
        }
        guard values.shared[Self.coefficients] != nil else {
            throw TesseraError(.badData, "the plan has no value for the parameter '\(Self.coefficients)'")
        }
    }

    package func check(_ shape: [Int]) throws(TesseraError) {
        let counts = Set(coefficients.map(\.count)), count = counts.first ?? 0
        guard counts.count == 1, count > 0 else {
            throw TesseraError(
                .badData, "the tasks have \(counts.sorted().map { "\($0)" }.joined(separator: " and ")) coefficients",
                advice: "give every task the same number of coefficients for a tensor")
        }
        guard count == 1 || hasPartition else {
            throw TesseraError(
                .badData, "has \(count) coefficients of each task, and no partition says which entries they are of",
                advice: "name a file that holds the partition of this tensor or of its shape under 'partition'")
        }
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 1, memory: MemoryNeed(perThread: 2 * MemoryLayout<Double>.stride * FixedTree.tileElements))
    }

    package func merge(_ tensor: TensorPasses) throws {
        try check(tensor.shape)
        let count = coefficients.first?.count ?? 0, partition = count > 1 ? try tensor.givenIndex(Self.partition) : nil
        try tensor.emit { tile, out in
            var sums = [Double](repeating: 0, count: tile.count)
            let parts = try partition.map { try partNumbers($0, below: count, of: tile, in: tensor) }
            for (model, own) in zip(models, coefficients) {
                let vector = try tile.taskVector(model)
                for index in 0..<tile.count { sums[index] += own[parts?[index] ?? 0] * Double(vector[index]) }
            }
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + sums[index]) }
        }
    }

    /// - Throws: `badData` for a part that has no coefficient.
    private func partNumbers(_ given: Int, below count: Int, of tile: Tile, in tensor: TensorPasses) throws -> [Int] {
        let parts = try tile.givenIntegers(given)
        if let index = parts.firstIndex(where: { !(0..<count).contains($0) }) {
            throw tensor.given[given].refusal(
                "has part \(parts[index]) at element \(tile.range.lowerBound + index); the tensor has \(count) coefficients",
                advice: "number the parts from 0 to \(count - 1)")
        }
        return parts
    }
}
