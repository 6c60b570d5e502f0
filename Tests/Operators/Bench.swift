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

    /// The output. Every block is written exactly once, or this throws.
    func run(_ method: any MergeMethod.Type, shared: [String: ParameterValue] = [:], perInput: [[String: ParameterValue]] = [])
        throws -> TestTensor
    {
        let bytes = try outputs(method, codec: Rounding(dtype: output), shared: shared, perInput: perInput)
        return TestTensor(output, sources[0].shape, bytes: bytes[0])
    }

    /// The bytes of all of a codec's outputs.
    func outputs(
        _ method: any MergeMethod.Type, codec: any ElementCodec, shared: [String: ParameterValue] = [:],
        perInput: [[String: ParameterValue]] = []
    ) throws -> [[UInt8]] {
        let shape = sources[0].shape
        let inputs = TensorInputs(count: sources.count, base: base, randomKey: randomKey)
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
                shape: shape, codec: codec, sources: stored, inputs: inputs, kernels: kernels, runner: runner,
                memory: MemoryBudget(bytes: memory), matrixElements: cost.matrixElements, sinks: sinks)
        }
        let rounds = try method.init(values, inputs: inputs).modelRounds(of: shape)
        for (round, statistics) in rounds.enumerated() {
            // The tensor is the whole model.
            let bound = try method.init(values, inputs: inputs)
            let part = ModelFold.Part(
                name: "t", shape: shape, models: Array(sources.indices), base: base, statistics: statistics)
            var fold = ModelFold(round: round, [part])
            while let stage = fold.stage(of: part) {
                let passes = passes(bound.cost(of: shape, measuring: stage), nil, [])
                try bound.measure(stage, in: passes)
                let found = passes.statistics
                try fold.fold { _ in found }
            }
            for (name, numbers) in fold.numbers {
                for (source, number) in numbers { values.perInput[source][name] = .number(number) }
            }
        }
        let outputs = codec.outputs(shape: shape), sinks = outputs.map { _ in Collector() }
        let bound = try method.init(values, inputs: inputs)
        try bound.merge(passes(bound.cost(of: shape), codec, sinks))
        return try zip(outputs, sinks).map { try $1.bytes(count: $0.byteCount) }
    }
}
