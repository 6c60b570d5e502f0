import Foundation
import Operators
import TestSupport
import Testing

/// The recipes of docs/methods.md can be planned, on a small family that has the names of their models, adapters and files.
@Suite struct MethodPageTests {
    private static let page =
        (try? String(contentsOfFile: "\(Repository.root)/docs/methods.md", encoding: .utf8)) ?? ""

    private static let recipes: [String] = page.components(separatedBy: "```yaml\n").dropFirst()
        .compactMap { $0.components(separatedBy: "```").first }

    private static let names = [
        "model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "lm_head",
    ].map { "\($0).weight" }

    @Test func thereAreRecipes() {
        #expect(Self.recipes.allSatisfy { $0.hasPrefix("merge_method:") })
        #expect(Self.recipes.contains { $0.contains("lines:") } && Self.recipes.contains { $0.contains("sweep:") })
        let shown = Set(Self.recipes.compactMap { $0.firstMatch(of: #/merge_method: (\w+)/#).map { String($0.output.1) } })
        // These share a section and a recipe with another method, which has the same inputs and parameters.
        let alike: Set = [
            "breadcrumbs", "dare_linear", "della_linear", "iso_cts", "ram", "star", "tact", "tall",
        ]
        #expect(Set(MergeMethods.all.map { $0.name }).subtracting(shown) == alike)
    }

    /// What the page says of a method: its parameters by name, and what it does not cover or how it differs.
    @Test func everyParameterIsOnThePage() {
        for method in MergeMethods.all {
            for parameter in method.parameters {
                #expect(Self.page.contains("`\(parameter.name)`"), "\(method.name): \(parameter.name)")
            }
            #expect(Self.page.contains(method.name), "\(method.name)")
        }
    }

    @Test func everyRecipeIsPlanned() async throws {
        let directory = try TemporaryDirectory()
        var made: Set<String> = []
        func names(_ pattern: Regex<(Substring, Substring)>, in recipe: String) -> [String] {
            recipe.matches(of: pattern).map { String($0.output.1) }.filter { made.insert($0).inserted }
        }
        for (number, recipe) in Self.recipes.enumerated() {
            for model in names(#/model: ([A-Za-z0-9.\/_-]+)/#, in: recipe) + names(#/base_model: ([a-z0-9-]+)/#, in: recipe) {
                try TestTensor.writeCheckpoint("\(directory.path)/\(model)", tensors(Float(made.count)))
            }
            for adapter in names(#/adapter: ([a-z0-9-]+)/#, in: recipe) + names(#/\+([a-z0-9-]+)/#, in: recipe) {
                try writeAdapter("\(directory.path)/\(adapter)")
            }
            for file in names(#/([a-z-]+\.safetensors)/#, in: recipe) {
                try Data(TestTensor.encode(tensors(1))).write(to: URL(fileURLWithPath: "\(directory.path)/\(file)"))
            }
            try directory.write(recipe, to: "\(number).yml")
            try directory.write(
                #"{"tensors": \#(Self.names), "coefficients": {"tune-a": [0, 1, 0.5, 2], "tune-b": [1, 1, 1, 1]}}"#,
                to: "coefficients.json")
            let outcome = try await Tessera.run(["plan", "\(number).yml", "--strict"], in: directory.path)
            #expect(outcome.exitCode == 0, "\(recipe)\(outcome.errors)")
        }
        #expect(made.contains("gram-a.safetensors") && made.contains("preference-a") && made.contains("adapter-b"))
    }

    private func tensors(_ value: Float) -> [(String, TestTensor)] {
        Self.names.map { ($0, TestTensor([Float](repeating: value, count: 64), shape: [8, 8])) }
    }

    private func writeAdapter(_ path: String) throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Data(#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["up_proj"]}"#.utf8).write(
            to: URL(fileURLWithPath: "\(path)/adapter_config.json"))
        let factors = Self.names[1...2].flatMap { name in
            let module = "base_model.model.\(name.dropLast(".weight".count))"
            return [
                ("\(module).lora_A.weight", TestTensor([Float](repeating: 1, count: 8), shape: [1, 8])),
                ("\(module).lora_B.weight", TestTensor([Float](repeating: 1, count: 8), shape: [8, 1])),
            ]
        }
        try Data(TestTensor.encode(factors)).write(to: URL(fileURLWithPath: "\(path)/adapter_model.safetensors"))
    }
}
