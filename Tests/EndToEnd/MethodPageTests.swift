import Foundation
import TestSupport
import Testing

/// The recipes of docs/methods.md can be planned, on a small family that has the names of their models.
@Suite struct MethodPageTests {
    /// The text of each recipe. Those that read more than models (adapters, stores, given files) are tested where these are.
    private static let recipes: [String] = {
        let page = (try? String(contentsOfFile: "\(Repository.root)/docs/methods.md", encoding: .utf8)) ?? ""
        let blocks = page.components(separatedBy: "```yaml\n").dropFirst().compactMap { $0.components(separatedBy: "```").first }
        return blocks.filter { block in
            block.hasPrefix("merge_method:") && !["+", "#", "adapter:", ".safetensors", ".json"].contains { block.contains($0) }
        }
    }()

    @Test func thereAreRecipes() {
        #expect(Self.recipes.count >= 30)
        #expect(Self.recipes.contains { $0.contains("lines:") } && Self.recipes.contains { $0.contains("sweep:") })
    }

    @Test func everyRecipeIsPlanned() async throws {
        let directory = try TemporaryDirectory()
        var made: Set<String> = []
        for (number, recipe) in Self.recipes.enumerated() {
            for match in recipe.matches(of: #/model: ([A-Za-z0-9.\/_-]+)/#) where made.insert(String(match.output.1)).inserted {
                let rows = ["model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "lm_head"]
                try TestTensor.writeCheckpoint(
                    "\(directory.path)/\(match.output.1)",
                    rows.map { ("\($0).weight", TestTensor([Float](repeating: Float(made.count), count: 64), shape: [8, 8])) })
            }
            try directory.write(recipe, to: "\(number).yml")
            let outcome = try await Tessera.run(["plan", "\(number).yml", "--strict"], in: directory.path)
            #expect(outcome.exitCode == 0, "\(recipe)\(outcome.errors)")
        }
    }
}
