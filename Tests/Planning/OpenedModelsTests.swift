import Core
import Planning
import TestSupport
import Testing

@Suite struct OpenedModelsTests {
    @Test(arguments: [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers", 3, "self_attn.q_proj"),
        ("model.layers.10.self_attn.q_proj.bias", "model.layers", 10, "self_attn.q_proj.bias"),
        ("model.layers.3.mlp.experts.17.up_proj.weight", "model.layers", 3, "mlp.experts.*.up_proj"),
        ("model.embed_tokens.weight", nil, nil, "model.embed_tokens"), ("weight", nil, nil, "weight"),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight", "encoder.block", 0, "layer.*.DenseReluDense.wi"),
    ])
    func namesTellPlaces(name: String, stack: String?, layer: Int?, module: String) {
        let place = TensorPlace(name)
        #expect(place.stack == stack && place.layer == layer && place.module == module, "\(place)")
    }

    @Test func aPathGoesBeforeWhatItMeansInARecipe() throws {
        let directory = try TemporaryDirectory()
        for name in ["a+b", "c"] { try TestTensor.writeCheckpoint("\(directory.path)/\(name)", [("t", TestTensor([1]))]) }
        let models = try OpenedModels.open(["a+b", "c", "c"], workingDirectory: directory.path)
        #expect(models.references == ["a+b", "c", "c"] && models.files.count == 2)
        #expect(models.tensor(named: "t", of: 2)?.source == models.tensor(named: "t", of: 1)?.source)
        #expect(throws: (any Error).self) { try OpenedModels.open(["a++b"], workingDirectory: directory.path) }
    }
}
