import Foundation
import Operators
import TestSupport
import Testing

/// Every method on task vectors takes them from full checkpoints, from stores, after a sparsifier and from adapters, in one
/// recipe, and makes of them what it makes of the models written out.
///
/// The base is zero: only then has a model that is written out its task vector's own bits.
@Suite(.serialized) struct CompositionTests {
    private static let methods = MergeMethods.all.filter {
        $0.inputs.base == .required || $0.parameters.contains(where: \.isFile)
    }
    private static let seeds = "\(Repository.golden)/seed-cases", golden = "\(Repository.golden)/models/f32"

    private let directory: TemporaryDirectory
    private let base: String

    init() throws {
        directory = try TemporaryDirectory()
        base = "base_model: \(directory.path)/base\n"
        let origin = try TestTensor.read("\(Self.golden)/base")
        for name in ["base", "tune-0", "tune-1", "tune-2"] {
            let tensors = try TestTensor.read("\(Self.golden)/\(name)").sorted { $0.key < $1.key }
            try TestTensor.writeCheckpoint(
                "\(directory.path)/\(name)",
                tensors.map { key, tensor in
                    let values = zip(tensor.values, origin[key]?.values ?? []).map { Float($0) - Float($1) }
                    return (key, TestTensor(values, shape: tensor.shape))
                })
        }
    }

    private func run(_ recipe: String, _ output: String) async throws {
        let path = try directory.write(recipe, to: "recipe.yml")
        let outcome = try await Tessera.run(["run", path, "\(directory.path)/\(output)", "--overwrite"])
        try #require(outcome.exitCode == 0, "\(recipe)\n\(outcome.errors)")
    }

    /// References of the four kinds, and of the same models as checkpoints.
    private func kinds() async throws -> [(mixed: String, written: String)] {
        func store(_ key: String, of task: String) -> String {
            "\(key)\n\(base)models:\n- model: \(directory.path)/\(task)\n"
        }
        try await run(store("quantize: {method: tvq, bits: 8}", of: "tune-1"), "quantized")
        try await run(store("sparsify: {method: magnitude, density: 0.5}", of: "tune-2"), "sparse")
        let mixed = [
            "\(directory.path)/quantized#tune-1", "\(directory.path)/tune-0", "\(directory.path)/sparse#tune-2",
            "\(directory.path)/base+\(Self.seeds)/palora/adapter-0",
        ]
        var kinds: [(String, String)] = []
        for (index, reference) in mixed.enumerated() {
            try await run(
                "merge_method: passthrough\nmodels:\n- model: '\(reference)'\ndtype: float32\n", "written-\(index)")
            kinds.append((reference, "\(directory.path)/written-\(index)"))
        }
        return kinds
    }

    private func recipe(_ method: any MergeMethod.Type, _ models: [String]) throws -> String {
        var parameters: [String] = []
        for parameter in method.parameters where parameter.isRequired || parameter.name == "density" {
            let value: String
            switch parameter.kind {
            case .integer: value = "1"
            case .tensors(.everyTensor): value = "\(Self.seeds)/fisher/fisher-0.safetensors"
            case .tensors: value = "\(Self.seeds)/regmean/gram-0.safetensors"
            case .coefficients: value = try coefficients(models)
            default: value = "0.5"
            }
            parameters.append("\(parameter.name): \(value)")
        }
        return "merge_method: \(method.name)\n\(base)models:\n"
            + models.map { "- model: '\($0)'\n" }.joined() + "parameters: {\(parameters.joined(separator: ", "))}\n"
            + "dtype: float32\n"
    }

    private func coefficients(_ models: [String]) throws -> String {
        let names = try TestTensor.read("\(directory.path)/base").keys.sorted()
        let tasks = models.enumerated().map { index, model in
            (model, names.indices.map { Double(($0 + index) % 5) / 4 - 0.4 })
        }
        let json = try JSONSerialization.data(
            withJSONObject: ["tensors": names, "coefficients": Dictionary(uniqueKeysWithValues: tasks)] as [String: Any])
        return try directory.write(String(decoding: json, as: UTF8.self), to: "coefficients.json")
    }

    /// These take an adapter by its factors, which are not those of the folded checkpoint to the last bit.
    private static let byFactors = ["core_space", "knots"]

    @Test func everyMethodTakesEveryKindOfSource() async throws {
        let kinds = try await kinds()
        #expect(Self.methods.count >= 30)
        for method in Self.methods {
            // Methods of one model get each kind in turn.
            let count = min(kinds.count, method.inputs.models.upperBound)
            for start in stride(from: 0, to: kinds.count, by: count) {
                let chosen = kinds[start..<start + count]
                try await run(recipe(method, chosen.map(\.written)), "expected")
                try await run(recipe(method, chosen.map(\.mixed)), "found")
                guard !Self.byFactors.contains(method.name) else { continue }
                let differences = Comparison.differences(
                    try TestTensor.read("\(directory.path)/found"), from: try TestTensor.read("\(directory.path)/expected"),
                    rtol: 0)
                #expect(differences == [], "\(method.name), \(chosen.map(\.mixed))")
            }
        }
    }
}
