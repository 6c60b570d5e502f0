import Checkpoints
import Core
import Foundation
import Operators
import Planning
import TestSupport
import Testing
import Work

/// Layers chosen, stacked and repeated; modules; and names of models that are no paths.
@Suite struct SliceTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for (model, depth) in [("a", 4), ("b", 6)] { try write(model, depth: depth) }
    }

    /// Every tensor of layer `k` has `k + 1` elements, so that its origin shows.
    private func write(_ model: String, depth: Int, extra: [(String, TestTensor)] = []) throws {
        let layers = (0..<depth).flatMap { layer in
            ["attn.weight", "mlp.weight"].map {
                ("model.layers.\(layer).\($0)", TestTensor([Float](repeating: 1, count: layer + 1)))
            }
        }
        try TestTensor.writeCheckpoint(
            "\(directory.path)/\(model)",
            layers + [("model.embed_tokens.weight", TestTensor([1, 2])), ("model.norm.weight", TestTensor([1]))] + extra)
        let types = (0..<depth).map { "\"\(model)\($0)\"" }.joined(separator: ", ")
        try Data(#"{"num_hidden_layers": \#(depth), "layer_types": [\#(types)], "torch_dtype": "float32"}"#.utf8)
            .write(to: URL(fileURLWithPath: "\(directory.path)/\(model)/config.json"))
    }

    private func plan(_ recipe: String) throws -> Plan {
        try Planner.plan(PlanRequest(recipe: recipe, recipeName: "recipe.yml", workingDirectory: directory.path))
    }

    /// What a few lines can ask for without end: a stack of stacks.
    @Test func outputsBeyondAllModelsAreRefused() throws {
        try write("deep", depth: 1000)
        let slice = "- sources: [{model: deep, layer_range: [0, 1000]}]\n"
        let stack = "merge_method: passthrough\nslices:\n" + String(repeating: slice, count: 300)
        let problem = #expect(throws: Problems.self) { try plan(stack) }?.all.first
        #expect(problem?.problem.hasPrefix("the output would have more than 500000 tensors") == true && problem?.line == 253)
    }

    private func work(_ plan: Plan) -> [String: TensorWork] {
        Dictionary(uniqueKeysWithValues: plan.stages.joined().flatMap(\.tensors).map { ($0.name, $0) })
    }

    private static let stack = """
        merge_method: passthrough
        slices:
        - sources: [{model: a, layer_range: [0, 3]}]
        - sources: [{model: b, layer_range: [2, 6]}]
        - sources: [{model: b, layer_range: [2, 3], parameters: {scale: 0.5}}]
        """

    @Test func layersAreStackedAndRepeated() throws {
        let plan = try plan(Self.stack), work = work(plan)
        let shapes = (0..<8).map { work["model.layers.\($0).mlp.weight"]?.shape[0] }
        #expect(shapes == [1, 2, 3, 3, 4, 5, 6, 3])
        #expect(work.count == 18)
        #expect(work["model.layers.8.mlp.weight"] == nil)
        // Files are counted over the inputs: 0 is a's, 1 is b's. What stands before the layers is the first slice's.
        #expect(work["model.embed_tokens.weight"]?.sources[0].file == 0)
        #expect(work["model.norm.weight"]?.sources[0].file == 1)
        #expect(work["model.layers.7.mlp.weight"]?.values.perInput[0]["scale"] == .number(0.5))
        let config = try #require(plan.sidecars.first { $0.name == "config.json" }).contents(from: LocalFiles())
        #expect(try JSONText(config).integer(["num_hidden_layers"]) == 8)
        #expect(
            try JSONText(config).elements(["layer_types"])
                == ["a0", "a1", "a2", "b2", "b3", "b4", "b5", "b2"].map { "\"\($0)\"" })
    }

    /// Gradients run over each slice, and stand at their beginning outside the layers.
    @Test func gradientsRunOverTheSlice() throws {
        let recipe = """
            merge_method: linear
            slices:
            - sources:
              - {model: a, layer_range: [0, 3], parameters: {weight: [0, 1]}}
              - {model: b, layer_range: [0, 3]}
            - sources:
              - {model: a, layer_range: [3, 4]}
              - {model: b, layer_range: [3, 4]}
            parameters:
              weight: [10, 20]
            """
        let work = work(try plan(recipe))
        #expect(weights(work["model.layers.0.mlp.weight"]) == [0, 10])
        #expect(weights(work["model.layers.1.mlp.weight"]) == [0.5, 15])
        #expect(weights(work["model.layers.2.mlp.weight"]) == [1, 20])
        #expect(weights(work["model.layers.3.mlp.weight"]) == [20, 20], "a slice of one layer stands at the end")
        #expect(weights(work["model.embed_tokens.weight"]) == [0, 10])
        #expect(weights(work["model.norm.weight"]) == [10, 10])
    }

    private func weights(_ work: TensorWork?) -> [Double?] {
        (work?.values.perInput ?? []).map { if case .number(let value)? = $0["weight"] { value } else { nil } }
    }

    @Test(arguments: [
        ("slices:\n- sources: [{model: a, layer_range: [0, 5]}]\n", 3, "'a' has 4 layers; the recipe asks for [0, 5]"),
        ("slices:\n- sources: [{model: a, layer_range: [0, 2000000000000]}]\n", 3, "asks for [0, 2000000000000]"),
        ("models:\n- model: a\n- model: b\n", 1, "takes 1 model; the recipe has 2"),
        ("slices:\n- sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}]\n", 3, "takes 1 model"),
        ("modules:\n  text:\n    models: [{model: a}]\n", 3, "no module 'text'"),
    ])
    func slicesThatCannotBe(lines: String, line: Int, words: String) throws {
        let problems = #expect(throws: Problems.self) { try plan("merge_method: passthrough\n\(lines)") }?.all ?? []
        #expect(problems.first?.description.contains(words) == true, "\(problems)")
        #expect(problems.first?.line == line)
    }

    @Test func modelsOfDifferentDepthAreToldOnce() throws {
        let recipe = "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1}\n"
        let problems = #expect(throws: Problems.self) { try plan(recipe) }?.all ?? []
        #expect(problems.map(\.problem) == ["'a' has 4 layers in model.layers; another model has 6"])
    }

    @Test func everySliceNeedsTheBase() throws {
        let recipe = """
            merge_method: task_arithmetic
            base_model: a
            slices:
            - sources: [{model: b, layer_range: [0, 4]}]
            parameters: {weight: 1}
            """
        let problems = #expect(throws: Problems.self) { try plan(recipe) }?.all ?? []
        #expect(problems.first?.advice == "list the base among the sources of every slice")
    }

    // MARK: Modules

    @Test func modulesAreToldApartByTheirNames() throws {
        let extra = [
            ("model.visual.blocks.0.weight", TestTensor([1])), ("model.visual.merger.weight", TestTensor([1])),
            ("lm_head.weight", TestTensor([1])),
        ]
        for model in ["x", "y"] { try write(model, depth: 2, extra: extra) }
        let all = { (lines: String) in "merge_method: linear\nmodules:\n" + lines }
        let module = { (name: String, weights: String) in
            "  \(name):\n    models: [{model: x}, {model: y}]\n    parameters: {weight: \(weights)}\n"
        }
        let recipe = all(module("text_decoder", "[1, 2]") + module("vision_tower", "3") + module("multi_modal_projector", "4"))
        let work = work(try plan(recipe))
        #expect(weights(work["model.layers.1.mlp.weight"])[1] == 2)
        #expect(weights(work["lm_head.weight"])[1] == 1)
        #expect(weights(work["model.visual.blocks.0.weight"])[1] == 3)
        #expect(weights(work["model.visual.merger.weight"])[1] == 4)
        let problems = #expect(throws: Problems.self) { try plan(all(module("text_decoder", "1"))) }?.all ?? []
        #expect(problems.map(\.problem).contains("the module 'vision_tower' is not listed, so its tensors would be missing"))
        // Two stacks cannot be sliced by one range.
        let sliced = "merge_method: passthrough\nslices:\n- sources: [{model: x, layer_range: [0, 1]}]\n"
        let stacks = #expect(throws: Problems.self) { try plan(sliced) }?.all ?? []
        #expect(stacks.first?.problem.contains("several stacks of layers: model.layers, model.visual.blocks") == true)
    }

    // MARK: What some models lack

    @Test func aTiedHeadIsTheEmbedding() throws {
        try write("untied", depth: 4, extra: [("lm_head.weight", TestTensor([5, 6]))])
        let recipe = "merge_method: linear\nmodels:\n- model: a\n- model: untied\nparameters: {weight: 1}\n"
        let head = try #require(work(try plan(recipe))["lm_head.weight"])
        let embedding = try #require(work(try plan(recipe))["model.embed_tokens.weight"])
        #expect(head.sources[0] == embedding.sources[0])
        #expect(head.sources[1] != embedding.sources[1])
    }

    @Test func biasesMayBeMissing() throws {
        try write("biased", depth: 4, extra: [("model.layers.0.attn.bias", TestTensor([1]))])
        let recipe = "merge_method: linear\nmodels:\n- model: a\n- model: biased\nparameters: {weight: 1}\n"
        let plan = try plan(recipe)
        #expect(work(plan)["model.layers.0.attn.bias"]?.sources.count == 1)
        #expect(plan.remarks.contains("not every model has model.layers.0.attn.bias; merged from the models that do"))
    }

    @Test func parametersSetInVainAreTold() throws {
        let recipe =
            "merge_method: linear\nmodels:\n- model: a\n  parameters: {weihgt: 1, normalize: true}\nparameters: {weight: 1}\n"
        let warnings = try plan(recipe).warnings.map(\.description)
        #expect(
            warnings.contains {
                $0.contains("recipe.yml:4: the method 'linear' has no parameter 'weihgt'") && $0.contains("'weight'?")
            })
        #expect(warnings.contains { $0.contains("'normalize' is shared by all models") })
        var request = PlanRequest(recipe: recipe, recipeName: "recipe.yml", workingDirectory: directory.path)
        request.strict = true
        #expect(throws: Problems.self) { try Planner.plan(request) }
    }
}
