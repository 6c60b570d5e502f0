package import Core
import LinearAlgebra
import TensorKernels

/// Regression of linear layers on Gram matrices that the recipe gives (RegMean, arXiv 2212.09849).
///
/// For a matrix with a Gram matrix `Gₜ = XₜᵀXₜ` of the inputs of each model's layer, `Ĝₜ` is `Gₜ` with what is off its diagonal
/// times `off_diagonal`, and `out = (Σ xₜĜₜ)(Σ Ĝₜ + ridge·d·I)⁻¹` with `d` the mean of the diagonal of `Σ Ĝₜ`. Every other tensor
/// gets the mean of the models. A base takes no part.
package struct RegMean: MergeMethod {
    package static let name = "regmean"
    package static let summary = "Solves for the matrices whose outputs are closest to the models' on their own inputs."
    package static let inputs = InputContract(base: .optional, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .tensors(gram, .perModel, of: .columnSquares, "The file of Gram matrices of the inputs of this model's layers."),
        .number("off_diagonal", .shared, default: 0.9, in: 0...1, "Scales what is off the diagonal of each Gram matrix."),
        .number("ridge", .shared, default: 1e-8, in: 0...1, "Added to the diagonal, as a share of its mean."),
    ]
    package static let usesLinearAlgebra = true

    private static let gram = "gram"
    /// How far entries that should be equal may differ, relative to what they can be at most.
    private static let asymmetry = 1e-3

    private let models: [Int]
    private let given: [Int]
    private let offDiagonal: Double
    private let ridge: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        models = inputs.models
        guard !models.isEmpty else { throw TesseraError(.badData, "the plan names no models for this tensor") }
        given = models.compactMap { inputs.given(Self.gram, ofInput: $0) }
        offDiagonal = try values.number("off_diagonal")
        ridge = try values.number("ridge")
    }

    private var isRegression: Bool { !given.isEmpty && given.count == models.count }

    package func check(_ shape: [Int]) throws(TesseraError) {
        guard isRegression, let columns = shape.last, columns > LinearAlgebra.limit else { return }
        throw TesseraError(
            .badData,
            "\(Self.name) factors a matrix of \(columns) rows for the shape \(shape), and at most \(LinearAlgebra.limit) are "
                + "possible",
            advice: "leave the tensor out of the files of Gram matrices")
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        guard isRegression else { return OperatorCost(passes: 1) }
        let size = MatrixSize(shape, tasks: models.count), square = size.columns * size.columns
        return OperatorCost(
            passes: 1, operations: Double(models.count + 2) * size.gram, matrixElements: 2 * size.area + 2 * square,
            memory: MemoryNeed(shared: LinearAlgebra.bufferBytes))
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard isRegression else { return try mergeOther(tensor) }
        let found = try solution(tensor)
        try tensor.emit { tile, out in
            for index in 0..<tile.count { out[index] = Float(found.elements[tile.range.lowerBound + index]) }
        }
    }

    private func mergeOther(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            let sources = try models.map { try tile.stored($0) }
            tile.kernels.weightedSum(
                sources, weights: models.map { _ in 1 }, divisor: Float(models.count), into: out, count: tile.count)
        }
    }

    private func solution(_ tensor: TensorPasses) throws -> Matrix {
        let size = MatrixSize(tensor.shape, tasks: models.count)
        let target = try tensor.matrix(rows: size.rows, columns: size.columns)
        let system = try tensor.matrix(rows: size.columns, columns: size.columns)
        for (place, (model, index)) in zip(models, given).enumerated() {
            try tensor.checkCancellation()
            let own = try tensor.givenMatrix(index)
            guard own.rows == size.columns, own.columns == size.columns else {
                throw TesseraError(.badData, "a Gram matrix has another size than the columns of the matrix")
            }
            try shrink(own, tensor.given[index])
            let values = try tensor.matrix(model)
            do throws(TesseraError) {
                try values.checkFinite()
            } catch {
                throw error.of("the matrix of model \(place + 1)")
            }
            try target.assign(values.view(), times: own.view(), adding: true)
            system.add(own)
        }
        let mean = (0..<size.columns).reduce(0) { $0 + system[$1, $1] } / Double(size.columns)
        for index in 0..<size.columns { system[index, index] += ridge * mean }
        tensor.report("ridge", [ridge * mean])
        do throws(TesseraError) {
            try system.solvePositiveDefinite(into: target)
        } catch {
            guard error.code == .badData else { throw error }
            throw TesseraError(
                .badData, "the sum of the models' Gram matrices " + error.problem,
                advice: "take the Gram matrices of more inputs, or raise 'ridge'")
        }
        return target
    }

    /// Makes the matrix symmetric to the last bit, and scales what is off its diagonal.
    ///
    /// - Throws: `badData` for what cannot be a Gram matrix.
    private func shrink(_ matrix: Matrix, _ file: GivenTensor) throws(TesseraError) {
        let advice = "compute the file again: the products of a layer's inputs with themselves, XᵀX"
        for row in 0..<matrix.rows where matrix[row, row] < 0 {
            throw file.refusal("has \(matrix[row, row]) on the diagonal, in row \(row): it is no Gram matrix", advice: advice)
        }
        for row in 0..<matrix.rows {
            for column in 0..<row {
                let one = matrix[row, column], other = matrix[column, row]
                let largest = (matrix[row, row] * matrix[column, column]).squareRoot()
                guard (one - other).magnitude <= Self.asymmetry * max(largest, one.magnitude, other.magnitude) else {
                    throw file.refusal(
                        "is not symmetric: \(one) in row \(row), column \(column), and \(other) on the other side", advice: advice
                    )
                }
                matrix[row, column] = offDiagonal * (one + other) / 2
                matrix[column, row] = matrix[row, column]
            }
        }
    }
}
