import Core
import LinearAlgebra
import TensorKernels

/// The method whose update another method on whole matrices begins with: recipes name it under `of`.
struct InnerMethod: Sendable {
    private enum Kind: Sendable {
        case taskArithmetic
        case matrices(any MatrixMethod)
        /// By entries. The threshold of `ties` is of the whole model.
        case entries(any SparseSum)
        case consensus(Consensus)
    }

    static let taskArithmetic = "task_arithmetic"
    /// Of the parameter.
    static let name = "of"
    private static let methods: [any MergeMethod.Type] = [
        Ties.self, DareLinear.self, Consensus.self, TSV.self, WUDI.self, IsoC.self,
    ]

    private let kind: Kind
    /// Whether tensors that are no matrices get what the inner method makes of them.
    private let mergesOthers: Bool
    /// The role in which the inner method takes part. What adds up has the scale 0.3 and adds up other tensors as well; the rest
    /// has the scale 1 and averages them.
    let role: MatrixRole

    /// - Parameter names: of the methods that are possible; the first is the default.
    static func parameter(_ summary: String, of names: [String]) -> Parameter {
        .choice(name, of: names, default: names.first, summary)
    }

    /// - Parameter factor: multiplies the scale.
    /// - Throws: as the initializer of the method.
    init(_ values: ParameterValues, inputs: TensorInputs, scaledBy factor: Double = 1) throws(TesseraError) {
        let name = try values.text(Self.name), method = Self.methods.first { $0.name == name }
        let addsUp = !(method is any MatrixMethod.Type)
        let lambdas = (values.optionalNumbers(MatrixRole.scale) ?? [addsUp ? 0.3 : 1]).map { $0 * factor }
        var own = values
        own.shared[MatrixRole.scale] = .numbers(lambdas)
        role = try MatrixRole(own, inputs: inputs, others: addsUp ? .sum : .mean)
        let isMean = try values.flag("mean_only")
        mergesOthers = values.optionalText("others") == nil && !isMean
        for parameter in method?.parameters ?? [] where parameter.scope == .shared && own.shared[parameter.name] == nil {
            own.shared[parameter.name] = parameter.defaultValue
        }
        switch method {
        case is Ties.Type: kind = .entries(try Ties.published(own, inputs: inputs))
        case is DareLinear.Type:
            // The release drops half of the entries.
            let count = inputs.models.count
            kind = .entries(
                try DareLinear.with(
                    weights: Array(repeating: 1, count: count), densities: Array(repeating: 0.5, count: count), lambdas: lambdas,
                    inputs: inputs))
        case is Consensus.Type:
            own.shared[Self.name] = .text(Self.taskArithmetic)
            kind = .consensus(try Consensus(own, inputs: inputs))
        case let method as any MatrixMethod.Type: kind = .matrices(try method.init(own, inputs: inputs))
        default: kind = .taskArithmetic
        }
    }

    var addsUp: Bool { if case .matrices = kind { false } else { true } }

    func applies(to size: MatrixSize) -> Bool { matrices?.applies(to: size) ?? true }
    func order(_ size: MatrixSize) -> Int { matrices?.order(size) ?? 0 }

    var isEquivariant: Bool {
        switch kind {
        case .taskArithmetic: true
        case .matrices(let method): method.isEquivariant
        case .entries, .consensus: false
        }
    }

    private var matrices: (any MatrixMethod)? { if case .matrices(let method) = kind { method } else { nil } }

    /// What tensors that are no matrices are merged by; `nil` where `role` says it.
    var ofOthers: (any MergeMethod)? {
        guard mergesOthers else { return nil }
        return switch kind {
        case .entries(let method): method
        case .consensus(let method): method
        case .taskArithmetic, .matrices: nil
        }
    }

    /// The method itself where it measures whole models.
    var measuring: Ties? { if case .entries(let method) = kind { method as? Ties } else { nil } }

    /// Whether all singular values of the update are equal, and so its singular vectors are not defined: the directions are those
    /// of the sum of the task vectors.
    var isIsotropic: Bool { matrices is IsoC }

    func need(_ size: MatrixSize) -> MatrixNeed {
        if let matrices { return matrices.need(size) }
        var need = MatrixNeed(
            elements: 2 * size.area, operations: 0,
            memory: MemoryNeed(perThread: 2 * FixedTree.tileElements * MemoryLayout<Double>.stride))
        if case .entries(let method) = kind {
            let own = method.cost(of: [size.rows, size.columns])
            need.passes = own.passes
            need.memory = need.memory + own.memory
        }
        return need
    }

    /// The update, without the scale.
    func update(_ tasks: TaskMatrices) throws -> Matrix {
        switch kind {
        case .taskArithmetic: return try tasks.sum()
        case .matrices(let method): return try method.update(tasks)
        case .entries(let method):
            let values = try method.update(tasks.tensor)
            return try tasks.tensor.matrix(columns: tasks.size.columns) { tile in
                let target = tile.scratch(0)
                try values(tile, target)
                return target
            }
        case .consensus(let method):
            let values = try method.update(tasks.tensor)
            return try tasks.tensor.matrix(columns: tasks.size.columns) { tile in
                let sums = try values(tile), target = tile.scratch(0)
                for (index, value) in sums.enumerated() { target[index] = Float(value) }
                return target
            }
        }
    }
}

/// A method on whole matrices that begins with the update of another one.
protocol OuterMethod: MatrixMethod {
    var inner: InnerMethod { get }
}

extension OuterMethod {
    var role: MatrixRole { inner.role }
    var isEquivariant: Bool { inner.isEquivariant }
    func applies(to size: MatrixSize) -> Bool { inner.applies(to: size) }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] { inner.measuring?.modelRounds(of: shape) ?? [] }
    package func measure(round: Int, _ tensor: TensorPasses) throws { try inner.measuring?.measure(round: round, tensor) }

    package func merge(_ tensor: TensorPasses) throws {
        guard matrixSize(tensor.shape) == nil, let others = inner.ofOthers else { return try mergeMatrix(tensor) }
        try others.merge(tensor)
    }
}
