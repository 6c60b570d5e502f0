package import Core
import LinearAlgebra
import TensorKernels

/// Merging as adaptive projective gradient descent (DOGE, arXiv 2501.01230), on task arithmetic.
///
/// With `λₜ = eta/‖τₜ‖`: `m = Σ λₜ·(τₜ + Δ) ⊙ maskₜ`. `maskₜ` keeps the published share `density` of the largest entries of `τₜ`
/// over all matrices of the model that are merged (`PublishedTrim`).
///
/// `Δ` is common to all tasks and begins at 0. It descends on `Σⱼ Σ_rows ⟨vⱼ, vⱼ − Σ λₜ·vₜ − (Σ λₜ)·Δ⟩²`, where `vⱼ` are rows of
/// `τⱼ`, by Adam (arXiv 1412.6980; β 0.9 and 0.999, ε 10⁻⁸). From each gradient `g` the shared directions are taken out,
/// `g − U·Uᵀ·g`: with `r` the smaller side, `U` holds the first `⌊r/subspace_divisor⌋` left singular vectors of the first `⌊r/T⌋`
/// left singular vectors of all tasks side by side.
package struct DOGE: MatrixMethod {
    package static let name = "doge"
    package static let summary = "Adds the largest entries of normalised task vectors, corrected towards each task."
    package static let parameters = MatrixRole.parameters(
        [
            .number("eta", .shared, default: 0.07, in: 0...1e6, "The norm of each task vector in the update."),
            .number("density", .shared, default: 0.3, in: 0...1, "Share of the entries of the model's matrices that stay."),
            .number(
                "subspace_divisor", .shared, default: 6, in: 1...1e6,
                "The smaller side over this is the number of shared directions that the correction leaves alone."),
            .integer("steps", .shared, default: 400, in: 0...100_000, "Steps of the correction."),
            .number("learning_rate", .shared, default: 1e-4, in: 0...1, "The length of a step."),
            .tensorNames(
                "include", default: true, "Parts of the names of matrices that are merged; all others are treated as 'others'."),
        ], others: .base)

    private static let threshold = "threshold"

    package static let unmeasured: Set = ["eta", "subspace_divisor", "steps", "learning_rate", "others"]

    let role: MatrixRole
    private let eta: Double
    private let density: Double
    private let divisor: Double
    private let steps: Int
    private let rate: Double
    private let isIncluded: Bool
    /// `nil` before they have been measured.
    private let thresholds: [Double]?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs, others: .base)
        eta = try values.number("eta")
        density = try values.number("density")
        divisor = try values.number("subspace_divisor")
        steps = try values.integer("steps")
        rate = try values.number("learning_rate")
        isIncluded = try values.flag("include")
        thresholds = try values.statistics(Self.threshold, of: inputs.models)
    }

    func applies(to size: MatrixSize) -> Bool { isIncluded }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let products = 4 * Double(size.area) * Double(shared(size)) + 5 * Double(size.tasks * size.area)
        return MatrixNeed(
            elements: (size.tasks + 4) * size.area + 2 * size.factors + 2 * size.rank * size.rank + size.work,
            operations: Double(size.tasks + 1) * size.decomposition + Double(steps) * products, passes: 2)
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        guard matrixSize(shape) != nil else { return [] }
        let share = density
        return [[ModelStatistic(Self.threshold, .magnitude { PublishedTrim.rank(of: $1, share: share) })]]
    }

    /// The number of directions that the correction leaves alone.
    private func shared(_ size: MatrixSize) -> Int { Int(Double(size.rank) / divisor) }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        guard let thresholds else { throw TesseraError.notMeasured }
        let basis = try sharedDirections(tasks)
        let vectors = try (0..<tasks.count).map { try tasks.vector($0) }
        let factors = vectors.map { vector in
            let norm = vector.squaredNorm.squareRoot()
            return norm > 0 ? eta / norm : 0
        }
        let correction = try correction(vectors, factors, basis, tasks), update = try tasks.zeros()
        for (task, vector) in vectors.enumerated() {
            let band = PublishedTrim.band(from: thresholds[task], share: density), factor = factors[task]
            for place in update.elements.indices where band.contains(Float(vector.elements[place])) {
                update.elements[place] += factor * (vector.elements[place] + correction.elements[place])
            }
        }
        return update
    }

    private func sharedDirections(_ tasks: TaskMatrices) throws -> Matrix {
        let size = tasks.size, own = size.rank / tasks.count
        let stack = try tasks.tensor.matrix(rows: size.rows, columns: size.rank)
        for index in 0..<tasks.count {
            let found = try tasks.vector(index).singularValues(first: own)
            for column in 0..<own where found.values[column] > found.negligible {
                for row in 0..<size.rows { stack[row, index * own + column] = found.left[row, column] }
            }
        }
        let count = shared(size), found = try stack.singularValues(first: count)
        let basis = try tasks.tensor.matrix(rows: size.rows, columns: count)
        for column in 0..<count where found.values[column] > found.negligible {
            for row in 0..<size.rows { basis[row, column] = found.left[row, column] }
        }
        return basis
    }

    /// `Δ`.
    private func correction(
        _ vectors: [Matrix], _ factors: [Double], _ basis: Matrix, _ tasks: TaskMatrices
    ) throws -> Matrix {
        let correction = try tasks.zeros(), total = factors.reduce(0, +)
        guard total > 0, steps > 0, rate > 0 else { return correction }
        let gradient = try tasks.zeros(), space = tasks.tensor
        let shared = try space.matrix(rows: basis.columns, columns: tasks.size.columns)
        var adam = Adam(first: try tasks.zeros(), second: try tasks.zeros(), rate: rate)
        let products = RowProducts(vectors, factors)
        for _ in 0..<steps {
            try space.checkCancellation()
            products.gradient(at: correction, into: gradient)
            try shared.assign(basis.transposed, times: gradient.view())
            for place in shared.elements.indices { shared.elements[place] = -shared.elements[place] }
            try gradient.assign(basis.view(), times: shared.view(), adding: true)
            adam.step(correction, gradient)
        }
        return correction
    }
}

/// The gradient of the loss that `DOGE` states.
private struct RowProducts {
    private let vectors: [Matrix]
    private let total: Double
    /// For each row and task: `⟨vⱼ, vⱼ − Σ λₜ·vₜ⟩`.
    private let targets: [Double]

    init(_ vectors: [Matrix], _ factors: [Double]) {
        self.vectors = vectors
        total = factors.reduce(0, +)
        let rows = vectors[0].rows, columns = vectors[0].columns
        var targets: [Double] = []
        for row in 0..<rows {
            for vector in vectors {
                var target = Self.dot(vector, vector, row, columns)
                for (other, factor) in zip(vectors, factors) { target -= factor * Self.dot(vector, other, row, columns) }
                targets.append(target)
            }
        }
        self.targets = targets
    }

    /// `−2·(Σ λₜ)·Σⱼ ⟨vⱼ, …⟩·vⱼ`, row by row.
    func gradient(at correction: Matrix, into gradient: Matrix) {
        let columns = gradient.columns
        for row in 0..<gradient.rows {
            let target = Lanes(gradient, row)
            target.clear()
            for (task, vector) in vectors.enumerated() {
                let inner = targets[row * vectors.count + task] - total * Self.dot(vector, correction, row, columns)
                target.add(Lanes(vector, row), scale: -2 * total * inner)
            }
        }
    }

    private static func dot(_ one: Matrix, _ other: Matrix, _ row: Int, _ columns: Int) -> Double {
        Lanes(one, row).dot(Lanes(other, row))
    }
}

/// A row of a matrix, eight elements at a time. The order of sums is fixed.
private struct Lanes {
    private let elements: UnsafeMutableBufferPointer<Double>
    private let first: Int
    private let count: Int

    init(_ matrix: Matrix, _ row: Int) {
        elements = matrix.elements
        first = row * matrix.columns
        count = matrix.columns
    }

    private typealias Eight = SIMD8<Double>
    private static let width = MemoryLayout<Eight>.stride

    private var whole: Int { count / Eight.scalarCount }
    private var rest: Range<Int> { first + whole * Eight.scalarCount..<first + count }
    private var bytes: UnsafeMutableRawPointer? { elements.baseAddress.map { UnsafeMutableRawPointer($0 + first) } }

    func clear() {
        for index in first..<first + count { elements[index] = 0 }
    }

    func dot(_ other: Lanes) -> Double {
        guard let own = bytes, let others = other.bytes else { return 0 }
        var sum = Eight()
        for index in 0..<whole {
            sum +=
                own.loadUnaligned(fromByteOffset: index * Self.width, as: Eight.self)
                * others.loadUnaligned(fromByteOffset: index * Self.width, as: Eight.self)
        }
        return rest.reduce(sum.sum()) { $0 + elements[$1] * other.elements[$1 - first + other.first] }
    }

    func add(_ other: Lanes, scale: Double) {
        guard let own = bytes, let others = other.bytes else { return }
        for index in 0..<whole {
            let offset = index * Self.width
            let sum =
                own.loadUnaligned(fromByteOffset: offset, as: Eight.self)
                + scale * others.loadUnaligned(fromByteOffset: offset, as: Eight.self)
            own.storeBytes(of: sum, toByteOffset: offset, as: Eight.self)
        }
        for index in rest { elements[index] += scale * other.elements[index - first + other.first] }
    }
}

/// Adam (arXiv 1412.6980), in the order of operations of PyTorch.
private struct Adam {
    let first: Matrix
    let second: Matrix
    let rate: Double
    private var decays = (first: 1.0, second: 1.0)

    private static let beta = (first: 0.9, second: 0.999), epsilon = 1e-8

    init(first: Matrix, second: Matrix, rate: Double) {
        self.first = first
        self.second = second
        self.rate = rate
    }

    mutating func step(_ values: Matrix, _ gradient: Matrix) {
        decays = (decays.first * Self.beta.first, decays.second * Self.beta.second)
        let length = rate / (1 - decays.first), correction = 1 / (1 - decays.second).squareRoot()
        let (m, v, g, x) = (first.elements, second.elements, gradient.elements, values.elements)
        for place in 0..<values.rows * values.columns {
            m[place] += (1 - Self.beta.first) * (g[place] - m[place])
            v[place] = Self.beta.second * v[place] + (1 - Self.beta.second) * g[place] * g[place]
            x[place] -= length * m[place] / (v[place].squareRoot() * correction + Self.epsilon)
        }
    }
}
