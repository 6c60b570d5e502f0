package import Core
import LinearAlgebra

/// Spectral truncation and rescaling (STAR, NAACL 2025).
///
/// Of every `τₜ`, the fewest singular triplets stay whose values reach `eta` percent of the sum of all, multiplied so that the
/// sum stays as it was; `m` is the mean over the tasks. Tensors of more than two axes count as matrices of their first axis.
package struct STAR: MatrixMethod {
    package static let name = "star"
    package static let summary = "Averages the task vectors, each reduced to its leading singular vectors and rescaled."
    package static let parameters = MatrixRole.parameters([
        .number("eta", .shared, default: 40, in: 0...100, "Percent of the sum of singular values that is kept.")
    ])
    static let largestAxisCount = Int.max

    let role: MatrixRole
    private let eta: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        eta = try values.number("eta")
    }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        MatrixNeed(
            elements: 2 * size.area + size.factors + size.work, operations: Double(size.tasks) * size.decomposition)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let mean = try tasks.zeros()
        for index in 0..<tasks.count {
            let found = try tasks.vector(index).singularValues(), total = found.values.reduce(0, +)
            guard total > 0 else { continue }
            var sum = 0.0
            let below = found.values.prefix { value in
                sum += value
                return sum / total < eta / 100
            }
            let kept = min(found.values.count, below.count + 1), factor = total / found.values[..<kept].reduce(0, +)
            found.left.scaleColumns(by: found.values[..<kept].map { $0 * factor / Double(tasks.count) })
            try mean.assign(found.left.view(columns: 0..<kept), times: found.right.view(rows: 0..<kept), adding: true)
        }
        return mean
    }
}
