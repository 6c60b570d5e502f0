import Core
import Operators
import TensorKernels
import TestSupport

/// One tensor and a method, without plan, files or worker.
struct Bench {
    var sources: [TestTensor]
    var base: Int?
    var output = DType.f32
    var kernels = Kernels.best
    var runner: any ParallelRunner = InOrder()
    /// Bytes beside what the tensor needs.
    var memory = 1 << 30
    var randomKey: UInt64 = 0
    /// What the method is given beside the sources. If nothing is said: ones, and Gram matrices of which no two are the same.
    var given: [Given]?

    struct Given {
        let parameter: String
        /// `nil` for all sources.
        let source: Int?
        let tensor: TestTensor

        init(_ parameter: String, ofSource source: Int? = nil, _ tensor: TestTensor) {
            self.parameter = parameter
            self.source = source
            self.tensor = tensor
        }
    }

    /// The output. Every block is written exactly once, or this throws.
    func run(_ method: any MergeMethod.Type, shared: [String: ParameterValue] = [:], perInput: [[String: ParameterValue]] = [])
        throws -> TestTensor
    {
        let bytes = try outputs(method, codec: Rounding(dtype: output), shared: shared, perInput: perInput)
        return TestTensor(output, sources[0].shape, bytes: bytes[0])
    }

    /// The bytes of all of a codec's outputs, for each value of the method's scale.
    func outputs(
        _ method: any MergeMethod.Type, codec: any ElementCodec, shared: [String: ParameterValue] = [:],
        perInput: [[String: ParameterValue]] = []
    ) throws -> [[UInt8]] {
        let shape = sources[0].shape
        let given = try (given ?? standard(of: method)).map { given in
            GivenTensor(
                .init(parameter: given.parameter, input: given.source, file: "\(given.parameter)-\(given.source ?? 0)"),
                shape: given.tensor.shape,
                tensor: try StoredTensor(
                    Memory(bytes: given.tensor.bytes), offset: 0, dtype: given.tensor.dtype,
                    count: given.tensor.shape.reduce(1, *)))
        }
        let inputs = TensorInputs(count: sources.count, base: base, randomKey: randomKey, given: given.map(\.role))
        var values = ParameterValues(shared: shared, perInput: perInput)
        while values.perInput.count < sources.count { values.perInput.append([:]) }
        for parameter in method.parameters {
            guard let standard = parameter.defaultValue else { continue }
            if parameter.scope == .shared {
                values.shared[parameter.name] = values.shared[parameter.name] ?? standard
            } else {
                for index in values.perInput.indices {
                    values.perInput[index][parameter.name] = values.perInput[index][parameter.name] ?? standard
                }
            }
        }
        let stored = try sources.map {
            try StoredTensor(Memory(bytes: $0.bytes), offset: 0, dtype: $0.dtype, count: shape.reduce(1, *))
        }
        func passes(_ cost: OperatorCost, _ codec: (any ElementCodec)?, _ sinks: [any BlockSink]) -> TensorPasses {
            TensorPasses(
                shape: shape, codec: codec, sources: stored, given: given, inputs: inputs, kernels: kernels, runner: runner,
                memory: MemoryBudget(bytes: memory), matrixElements: cost.matrixElements, sinks: sinks)
        }
        let rounds = try method.init(values, inputs: inputs).modelRounds(of: shape)
        for (round, statistics) in rounds.enumerated() {
            // The tensor is the whole model.
            let bound = try method.init(values, inputs: inputs)
            let part = ModelFold.Part(
                name: "t", shape: shape, models: Array(sources.indices), base: base,
                layer: ModelFold.Layer(stack: ExactText("layers"), index: 0), statistics: statistics)
            var fold = ModelFold(round: round, [part])
            while let stage = fold.stage(of: part) {
                let passes = passes(bound.cost(of: shape, measuring: stage), nil, [])
                try bound.measure(stage, in: passes)
                let found = passes.statistics
                try fold.fold { _ in found }
            }
            // A test may say what it wants the whole model to have.
            for (source, found) in fold.values(of: part).enumerated() { values.perInput[source].merge(found) { own, _ in own } }
            values.shared[ModelStatistic.ownLayer] = fold.place(of: part).map { .number(Double($0)) }
        }
        let outputs = Array(Array(repeating: codec.outputs(shape: shape), count: values.outputCount).joined())
        let sinks = outputs.map { _ in Collector() }
        let bound = try method.init(values, inputs: inputs)
        try bound.merge(passes(bound.cost(of: shape), codec, sinks))
        return try zip(outputs, sinks).map { try $1.bytes(count: $0.byteCount) }
    }

    private func standard(of method: any MergeMethod.Type) -> [Given] {
        let shape = sources[0].shape
        return method.parameters.flatMap { parameter -> [Given] in
            guard case .tensors(let kind) = parameter.kind else { return [] }
            let owners = parameter.scope == .shared ? [nil] : sources.indices.filter { $0 != base }.map { Optional($0) }
            return owners.compactMap { owner in
                switch kind {
                case .everyTensor:
                    return Given(
                        parameter.name, ofSource: owner,
                        TestTensor([Float](repeating: 1, count: shape.reduce(1, *)), shape: shape))
                case .columnSquares:
                    guard shape.count == 2 else { return nil }
                    let size = shape[1]
                    let values = (0..<size * size).map { index in
                        let (row, column) = (index / size, index % size)
                        return row == column ? Float(size + (owner ?? 0)) : 1 / Float(1 + row + column + (owner ?? 0))
                    }
                    return Given(parameter.name, ofSource: owner, TestTensor(values, shape: [size, size]))
                case .partitions: return nil
                }
            }
        }
    }
}

extension MergeMethod {
    /// Values of the required parameters, and what stages before find of the whole model.
    static func testValues(_ number: Double) -> (shared: [String: ParameterValue], model: [String: ParameterValue]) {
        var shared: [String: ParameterValue] = [:], model: [String: ParameterValue] = [:]
        for parameter in parameters where parameter.isRequired {
            let value: ParameterValue
            switch parameter.kind {
            case .integer: value = .number(1)
            case .tensors: value = .text(parameter.name)
            case .coefficients:
                value = .text(parameter.name)
                model[parameter.name] = .numbers([number])
            default: value = .number(number)
            }
            if parameter.scope == .shared { shared[parameter.name] = value } else { model[parameter.name] = value }
        }
        return (shared, model)
    }
}
