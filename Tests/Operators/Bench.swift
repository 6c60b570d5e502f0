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

    /// The output's bytes. Every block is written exactly once, or this throws.
    func run(_ method: any MergeMethod.Type, shared: [String: ParameterValue] = [:], perInput: [[String: ParameterValue]] = [])
        throws -> TestTensor
    {
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
        let sink = Collector()
        try method.init(values, inputs: inputs).merge(
            TensorPasses(
                shape: shape, outputType: output, sources: stored, inputs: inputs, kernels: kernels, runner: runner,
                memory: MemoryBudget(bytes: memory), sinks: [sink]
            ))
        return TestTensor(output, shape, bytes: try sink.bytes(count: shape.reduce(1, *) * output.bitWidth / 8))
    }
}
