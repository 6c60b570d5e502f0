import Checkpoints
import Core
import Operators
import Planning
import TaskVectors
import TestSupport
import Work

/// Models in memory, and recipes planned from them.
struct MemoryFamily {
    let files = MemoryFiles()

    /// An embedding and two layers; every model has other values, so that files of two models are never the same.
    static func tensors(_ value: Float, layers: Int = 2) -> [(String, TestTensor)] {
        [("model.embed_tokens.weight", TestTensor([Float](repeating: value, count: 8), shape: [4, 2]))]
            + (0..<layers).map { ("model.layers.\($0).mlp.weight", TestTensor([value, 1, 2, 3, 4, 5], shape: [3, 2])) }
            + [("model.norm.weight", TestTensor([value, 1]))]
    }

    /// `base`, `a` and `b`, each a checkpoint of one part with a config.
    init() { for (model, value) in [("base", Float(0)), ("a", 1), ("b", 2)] { write(model, Self.tensors(value)) } }

    func write(_ model: String, _ tensors: [(String, TestTensor)]) {
        files.write(TestTensor.encode(tensors), to: "/models/\(model)/model.safetensors")
        write("{\"vocab_size\": 4, \"torch_dtype\": \"float32\"}", to: "\(model)/config.json")
    }

    /// A LoRA adapter of rank 1 and scale 4 for the first layer.
    func writeAdapter(_ name: String) {
        write(#"{"lora_alpha": 4}"#, to: "\(name)/adapter_config.json")
        files.write(
            TestTensor.encode([
                ("base_model.model.model.layers.0.mlp.lora_A.weight", TestTensor([1, 10], shape: [1, 2])),
                ("base_model.model.model.layers.0.mlp.lora_B.weight", TestTensor([1, 2, 3], shape: [3, 1])),
            ]), to: "/models/\(name)/adapter_model.safetensors")
    }

    func write(_ text: String, to path: String) { files.write(Array(text.utf8), to: "/models/\(path)") }

    func request(_ recipe: String, seed: UInt64 = 0) -> PlanRequest {
        PlanRequest(
            recipe: recipe, recipeName: "recipe.yml", workingDirectory: "/models", roots: Roots(everythingIn: files), seed: seed)
    }

    func plan(_ recipe: String, seed: UInt64 = 0) throws -> Plan { try Planner.plan(request(recipe, seed: seed)) }

    static let linear = "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n"

    static func store(_ lines: String) -> String { "\(lines)\nbase_model: base\nmodels:\n- model: a\n- model: b\n" }
}

extension Plan {
    var tensors: [TensorWork] { stages.joined().flatMap(\.tensors) }

    /// Statistics as workers would send them, by `numbers` of each tensor and task.
    func statistics(
        base: BaseIdentity? = nil, _ numbers: (TensorWork, _ task: Int) -> [Double]
    ) -> [ExactText: TensorStatistics] {
        var statistics: [ExactText: TensorStatistics] = [:]
        for tensor in tensors {
            guard case .encode(let encoding) = tensor.operation else { continue }
            let tasks = (0..<2).map { numbers(tensor, $0) }
            statistics[ExactText(tensor.name)] = Self.statistics(of: encoding, tasks, base: base).map(TensorStatistics.encoding)
        }
        return statistics
    }

    /// The numbers as the encoding reports them; `nil` for those that the tests do not plan with.
    private static func statistics(of encoding: Encoding, _ tasks: [[Double]], base: BaseIdentity?) -> EncodingStatistics? {
        switch encoding {
        case .quantize, .sparsify:
            base.map { .vectors(base: $0, tasks.map { VectorError(error: $0[0], energy: $0[1]) }) }
        case .compare: base.map { .comparison(base: $0, tasks.map { $0[0] == 1 }) }
        case .measureGrids(let measurement):
            .grids(
                tasks.map { numbers in
                    let width = measurement.formats.count, errors = Array(numbers.dropFirst())
                    let rows = stride(from: 0, to: errors.count, by: width).map {
                        Array(errors[$0..<min(errors.count, $0 + width)])
                    }
                    return GridErrors(energy: numbers[0], errors: rows)
                })
        case .measureMagnitudes:
            .magnitudes(
                tasks.map { numbers in
                    MagnitudeCounts(
                        stride(from: 0, to: numbers.count - 1, by: 2).map {
                            MagnitudeCount(
                                bin: UInt32(exactly: numbers[$0]) ?? 0, count: Int(exactly: numbers[$0 + 1]) ?? .max)
                        })
                })
        case .countKept: .kept(tasks.map { Int(exactly: $0.first ?? .nan) ?? .max })
        case .mask: nil
        }
    }
}
