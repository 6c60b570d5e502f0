import Foundation
import TestSupport
import Testing

/// Mixtures of experts that store the same experts in different ways.
@Suite struct ExpertFormTests {
    /// Three experts; `2·inner` is as large as `hidden`, so that a square matrix is among them.
    private static let experts = 3, inner = 2, hidden = 4

    enum Form: String, CaseIterable {
        case separate, mixtral, joined, transposed
    }

    /// One expert's part. Three times the largest element is exact in bfloat16.
    private static func matrix(_ model: Float, _ part: Int, _ expert: Int) -> [[Float]] {
        let size = part == 2 ? (hidden, inner) : (inner, hidden), first = (part * experts + expert) * inner * hidden
        return (0..<size.0).map { row in (0..<size.1).map { model * Float(1 + first + row * size.1 + $0) } }
    }

    private static func transposed(_ rows: [[Float]]) -> [[Float]] { rows[0].indices.map { column in rows.map { $0[column] } } }

    /// The model's tensors: every element is a multiple of `model`.
    private static func tensors(_ form: Form, _ model: Float) -> [(String, TestTensor)] {
        let layer = form == .mixtral ? "model.layers.0.block_sparse_moe" : "model.layers.0.mlp"
        func tensor(_ matrices: [[[Float]]], isOne: Bool = false) -> TestTensor {
            let matrices = form == .transposed ? matrices.map { transposed($0) } : matrices
            let shape = (isOne ? [] : [matrices.count]) + [matrices[0].count, matrices[0][0].count]
            return TestTensor(bfloat16: matrices.flatMap { $0.flatMap(\.self) }, shape: shape)
        }
        let gate = ("\(layer).gate.weight", TestTensor(bfloat16: (0..<12).map { model * Float($0) }, shape: [experts, hidden]))
        switch form {
        case .separate, .mixtral:
            let names = form == .separate ? ["gate_proj", "up_proj", "down_proj"] : ["w1", "w3", "w2"]
            return [gate]
                + (0..<experts).flatMap { expert in
                    names.enumerated().map { part, name in
                        ("\(layer).experts.\(expert).\(name).weight", tensor([matrix(model, part, expert)], isOne: true))
                    }
                }
        case .joined, .transposed:
            let both = (0..<experts).map { matrix(model, 0, $0) + matrix(model, 1, $0) }
            return [
                gate, ("\(layer).experts.gate_up_proj", tensor(both)),
                ("\(layer).experts.down_proj", tensor((0..<experts).map { matrix(model, 2, $0) })),
            ]
        }
    }

    /// The mean of a model and three times the model is twice the model, in the form of the first.
    @Test(arguments: Form.allCases, Form.allCases)
    func modelsTakeTheFormOfTheFirst(first: Form, second: Form) async throws {
        let directory = try TemporaryDirectory()
        try TestTensor.writeCheckpoint("\(directory.path)/a", Self.tensors(first, 1))
        try TestTensor.writeCheckpoint("\(directory.path)/b", Self.tensors(second, 3))
        _ = try directory.write(
            "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n", to: "recipe.yml")
        let outcome = try await Tessera.run(["run", "recipe.yml", "out"], in: directory.path)
        if first != second, [first, second].allSatisfy({ [.separate, .mixtral].contains($0) }) {
            // No family has both.
            #expect(outcome.exitCode == 65 && outcome.errors.contains("missing in"))
            return
        }
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let found = try TestTensor.read("\(directory.path)/out")
        let expected = Dictionary(uniqueKeysWithValues: Self.tensors(first, 2))
        #expect(found == expected)
        let forms = (outcome.output + outcome.errors).contains("stores its experts otherwise")
        let kinds = [Form.separate: 0, .mixtral: 0, .joined: 1, .transposed: 2]
        #expect(forms == (kinds[first] != kinds[second]))
    }

    /// What an adapter does to one tensor of all experts is done before an expert is taken out.
    @Test func adaptersComeFirst() async throws {
        let directory = try TemporaryDirectory()
        try TestTensor.writeCheckpoint("\(directory.path)/a", Self.tensors(.separate, 1))
        try TestTensor.writeCheckpoint("\(directory.path)/b", Self.tensors(.joined, 1))
        let name = "base_model.model.model.layers.0.mlp.experts", rank = Self.experts
        // Each expert's product is a matrix of its number, counted from 1.
        let b = (0..<Self.hidden).flatMap { _ in (0..<rank).map { Float($0 + 1) } }
        try FileManager.default.createDirectory(atPath: "\(directory.path)/l", withIntermediateDirectories: true)
        try Data(
            TestTensor.encode([
                (
                    "\(name).lora_A.weight",
                    TestTensor([Float](repeating: 1, count: rank * Self.inner), shape: [rank, Self.inner])
                ),
                ("\(name).lora_B.weight", TestTensor(b, shape: [Self.hidden, rank])),
            ])
        ).write(to: URL(fileURLWithPath: "\(directory.path)/l/adapter_model.safetensors"))
        _ = try directory.write(
            #"{"lora_alpha": 2, "target_parameters": ["mlp.experts.down_proj"]}"#, to: "l/adapter_config.json")
        _ = try directory.write(
            "merge_method: linear\ndtype: float32\nmodels:\n- model: a\n- model: b+l\nparameters: {weight: 0.5}\n",
            to: "recipe.yml")
        let outcome = try await Tessera.run(["run", "recipe.yml", "out"], in: directory.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let found = try TestTensor.read("\(directory.path)/out")
        let own = Dictionary(uniqueKeysWithValues: Self.tensors(.separate, 1))
        for (name, tensor) in own {
            let steps = name.split(separator: ".")
            let added = steps.contains("down_proj") ? Double(Int(steps[5]) ?? 0) + 1 : 0
            #expect(found[name]?.values == tensor.values.map { $0 + added }, "\(name)")
        }
    }
}
