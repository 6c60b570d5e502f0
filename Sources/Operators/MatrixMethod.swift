import Core
import LinearAlgebra
import TensorKernels

/// A tensor as a matrix, of which each task has one.
struct MatrixSize: Sendable, Hashable {
    let rows: Int
    let columns: Int
    let tasks: Int

    /// The first axis makes the rows, all others together the columns.
    init(_ shape: [Int], tasks: Int) {
        rows = shape.first ?? 1
        columns = shape.dropFirst().reduce(1, *)
        self.tasks = tasks
    }

    var rank: Int { min(rows, columns) }
    var area: Int { rows * columns }
    /// Elements of the left and right vectors of a decomposition.
    var factors: Int { rank * (rows + columns) }
    /// Elements that a decomposition works with.
    var work: Int { LinearAlgebra.singularValueWork(rows, columns) }

    /// Operations of one decomposition into singular values, of one product of the matrix with a square of its columns, and of
    /// the eigenvalues of such a square.
    var decomposition: Double { 16 * Double(area) * Double(rank) }
    var gram: Double { 2 * Double(area) * Double(columns) }
    var eigenvalues: Double { 9 * Double(columns) * Double(columns) * Double(columns) }
}

/// What the update of a matrix takes.
struct MatrixNeed: Sendable {
    /// Float64 elements in matrices at the same time.
    var elements: Int
    /// Arithmetic operations.
    var operations: Double
    var passes = 1
    /// Besides the matrices.
    var memory = MemoryNeed()
}

/// What all methods on whole matrices have in common: the scale, and which tensors are not merged as matrices.
struct MatrixRole: Sendable {
    /// The update of a tensor that is not merged as a matrix, before the scale: of its task vectors, or none.
    enum Others: String, CaseIterable {
        case mean, sum, base
    }

    static let scale = "lambda"

    let base: Int
    let models: [Int]
    /// One for each output.
    private(set) var lambdas: [Double]
    private let others: Others
    /// Whether the recipe excludes the tensor from what is done to matrices.
    let isExcluded: Bool
    /// Of each model: `TensorInputs.ranks`.
    let ranks: [Int?]

    /// - Parameters:
    ///   - others: the default; `nil` where it depends on another parameter.
    ///   - lambda: as `others`.
    static func parameters(_ own: [Parameter] = [], others: Others? = .mean, lambda: Double? = 1) -> [Parameter] {
        own + [
            .number(scale, .shared, default: lambda, "Scales the update."),
            .choice(
                "others", of: Others.allCases.map(\.rawValue), default: others?.rawValue,
                "The update of tensors that are no matrices: the mean of the task vectors, their sum, or none."),
            .tensorNames("mean_only", "Parts of the names of matrices that get the mean of their task vectors."),
            .tensorNames("exclude", "Parts of the names of matrices that are treated as tensors that are no matrices."),
        ]
    }

    init(
        _ values: ParameterValues, inputs: TensorInputs, others: Others = .mean, lambda: Double = 1
    ) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        ranks = models.map { inputs.ranks[$0] }
        lambdas = values.optionalNumbers(Self.scale) ?? [lambda]
        let isMean = try values.flag("mean_only")
        self.others = isMean ? .mean : values.optionalText("others").flatMap(Others.init) ?? others
        let isLeftAlone = try values.flag("exclude")
        isExcluded = isMean || isLeftAlone
    }

    /// The role with all updates multiplied.
    func scaled(by factor: Double) -> MatrixRole {
        var role = self
        role.lambdas = lambdas.map { $0 * factor }
        return role
    }

    /// Of the sum of the task vectors in `u`: the mean or the sum of the task vectors, or 0.
    var shareOfSum: Double {
        switch others {
        case .mean: 1 / Double(models.count)
        case .sum: 1
        case .base: 0
        }
    }

    /// `‖u‖²`.
    func squaredNormOfOther(_ tensor: TensorPasses) throws -> Double {
        let share = shareOfSum
        return try tensor.sums(1) { tile, norm in
            let sums = try tile.taskVectorSum(share == 0 ? [] : models)
            norm[0] = share * share * sums.reduce(0) { $0 + $1 * $1 }
        }[0]
    }

    /// `out = b + λ·u`, with `u` the mean or the sum of the task vectors, or 0.
    func mergeOther(_ tensor: TensorPasses) throws {
        let scales = lambdas.map { $0 * shareOfSum }
        try tensor.emit(scales.count) { tile, output, out in
            let scale = scales[output], sums = try tile.taskVectorSum(scale == 0 ? [] : models)
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + scale * sums[index]) }
        }
    }
}

/// A merge method that computes the update `m` of a whole matrix from its task vectors `τ₁ … τ_T`, in float64: `out = b + λ·m`.
protocol MatrixMethod: MergeMethod {
    var role: MatrixRole { get }

    /// Whether a tensor of this size is merged as a matrix, if it has two axes.
    func applies(to size: MatrixSize) -> Bool
    /// The largest number of axes of a tensor that is merged as a matrix.
    static var largestAxisCount: Int { get }
    /// The rows of the largest square matrix that is factored.
    func order(_ size: MatrixSize) -> Int
    func need(_ size: MatrixSize) -> MatrixNeed
    /// What multiplies `m`, for each output; the same for all methods but those whose `m` contains the scale.
    var scales: [Double] { get }
    /// Whether `m(Q·τ₁ … Q·τ_T) = Q·m(τ₁ … τ_T)` for every `Q` with orthonormal columns. A method that looks at single entries is
    /// not equivariant.
    var isEquivariant: Bool { get }
    /// `m`, without the scale. A method whose `m` depends on the scale has no `MergeMethod.scale`.
    func update(_ tasks: TaskMatrices) throws -> Matrix
}

extension MatrixMethod {
    package static var inputs: InputContract { InputContract(base: .required, models: 1...Int.max) }
    package static var usesLinearAlgebra: Bool { true }
    package static var scale: String? { MatrixRole.scale }
    static var largestAxisCount: Int { 2 }

    var isEquivariant: Bool { false }
    var scales: [Double] { role.lambdas }
    func applies(to size: MatrixSize) -> Bool { true }
    func order(_ size: MatrixSize) -> Int { size.rank }

    /// The tensor's size if it is merged as a matrix.
    func matrixSize(_ shape: [Int]) -> MatrixSize? {
        let size = MatrixSize(shape, tasks: role.models.count)
        let isMatrix = shape.count >= 2 && shape.count <= Self.largestAxisCount && !shape.contains(0)
        return isMatrix && !role.isExcluded && applies(to: size) ? size : nil
    }

    /// The matrix, if fewer rows do in its place.
    private func tall(_ size: MatrixSize) -> TallMatrix? { isEquivariant ? TallMatrix(size) : nil }

    /// The task vectors of a matrix, or what has the same products with fewer rows.
    func tasks(_ tensor: TensorPasses, _ size: MatrixSize) throws -> TaskMatrices {
        try tall(size)?.reduction(tensor, models: role.models).tasks
            ?? TaskMatrices(tensor: tensor, models: role.models, size: size)
    }

    package func check(_ shape: [Int]) throws(TesseraError) { try checkOrder(shape) }

    /// - Throws: `badData` for a matrix that is too large to be factored.
    func checkOrder(_ shape: [Int]) throws(TesseraError) {
        guard let size = matrixSize(shape) else { return }
        guard order(tall(size)?.reduced ?? size) <= LinearAlgebra.limit, max(size.rows, size.columns) <= Int(Int32.max) else {
            throw TesseraError(
                .badData,
                "\(Self.name) factors a matrix of \(order(size)) rows for the shape \(shape), and at most \(LinearAlgebra.limit) "
                    + "are possible", advice: "list a part of the tensor's name under 'mean_only' or 'exclude'")
        }
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        guard let size = matrixSize(shape) else { return OperatorCost(passes: 1) }
        let tall = tall(size), need = tall.map { $0.need(self.need($0.reduced)) } ?? self.need(size)
        return OperatorCost(
            passes: need.passes + 1, operations: need.operations, matrixElements: need.elements,
            memory: MemoryNeed(shared: LinearAlgebra.bufferBytes) + need.memory)
    }

    package func merge(_ tensor: TensorPasses) throws { try mergeMatrix(tensor) }

    func mergeMatrix(_ tensor: TensorPasses) throws {
        guard let size = matrixSize(tensor.shape) else { return try role.mergeOther(tensor) }
        let updates =
            try tall(size).map { try $0.reduction(tensor, models: role.models).update(update) }
            ?? wholeUpdate(tensor, size)
        let base = role.base, scales = scales
        try tensor.emit(scales.count) { tile, output, out in
            let update = try updates(tile), values = try tile.source(base), scale = scales[output]
            for index in 0..<tile.count { out[index] = Float(Double(values[index]) + scale * update[index]) }
        }
    }

    /// - Returns: the update of the elements of a tile.
    private func wholeUpdate(
        _ tensor: TensorPasses, _ size: MatrixSize
    ) throws -> @Sendable (Tile) throws -> UnsafePointer<Double> {
        let found = try update(TaskMatrices(tensor: tensor, models: role.models, size: size))
        let wrongSize = TesseraError(.internal, "\(Self.name) made an update of \(found.rows) x \(found.columns) elements")
        guard found.rows == size.rows, found.columns == size.columns else { throw wrongSize }
        return { tile in
            guard let first = found.elements.baseAddress else { throw wrongSize }
            return UnsafePointer(first + tile.range.lowerBound)
        }
    }
}

/// The task vectors of one matrix.
struct TaskMatrices {
    let tensor: TensorPasses
    let models: [Int]
    let size: MatrixSize
    /// What takes the place of the task vectors of a tall matrix.
    private let factors: [Matrix]?

    /// Whether the task vectors are those of the tensor itself.
    var areWhole: Bool { factors == nil }

    init(tensor: TensorPasses, models: [Int], size: MatrixSize, factors: [Matrix]? = nil) {
        self.tensor = tensor
        self.models = models
        self.size = size
        self.factors = factors
    }

    var count: Int { models.count }

    /// The task vector of the `index`-th model.
    ///
    /// - Throws: `badData` for a value that is not finite.
    func vector(_ index: Int) throws -> Matrix {
        try tensor.checkCancellation()
        if let factors { return try factors[index].copy() }
        let vector = try tensor.taskMatrix(models[index], columns: size.columns)
        try checkFinite(vector, of: index)
        return vector
    }

    /// - Throws: `badData` that names the model, for a value that is not finite.
    func checkFinite(_ matrix: Matrix, of index: Int) throws(TesseraError) {
        do throws(TesseraError) {
            try matrix.checkFinite()
        } catch {
            throw error.ofModel(index)
        }
    }

    /// `Σ τₜ`.
    func sum() throws -> Matrix {
        let sum = try zeros()
        for index in 0..<count { sum.add(try vector(index)) }
        return sum
    }

    func zeros() throws(TesseraError) -> Matrix { try tensor.matrix(rows: size.rows, columns: size.columns) }
}
