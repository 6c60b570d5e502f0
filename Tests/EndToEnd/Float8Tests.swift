import Core
import Foundation
import TestSupport
import Testing

/// Merges of small float8 checkpoints against their definition. All numbers are so short that float32 is exact up to the last
/// rounding.
@Suite(.serialized) struct Float8Tests {
    private let directory: TemporaryDirectory
    private static let types: [DType] = [.f8E4M3, .f8E5M2]
    private static let shape = [37, 11]

    init() throws { directory = try TemporaryDirectory() }

    /// A base and two fine-tunes of it: its codes, moved by a few.
    private func writeFamily(_ dtype: DType) throws -> (base: TestTensor, a: TestTensor, b: TestTensor) {
        var random = SplitMix(seed: 17)
        let count = Self.shape.reduce(1, *)
        let codes = (0..<count).map { _ in
            UInt8.random(in: 0x18...0x3c, using: &random) | (Bool.random(using: &random) ? 0x80 : 0)
        }
        func tensor(_ change: Int) -> TestTensor {
            TestTensor(dtype, Self.shape, bytes: codes.map { UInt8(Int($0) + Int.random(in: -change...change, using: &random)) })
        }
        let family = (base: tensor(0), a: tensor(3), b: tensor(3))
        for (name, tensor) in [("base", family.base), ("a", family.a), ("b", family.b)] {
            try TestTensor.writeCheckpoint("\(directory.path)/\(name)", [("layers.0.weight", tensor)])
        }
        return family
    }

    private func merge(_ recipe: String) async throws -> TestTensor {
        try directory.write(recipe, to: "recipe.yml")
        let outcome = try await Tessera.run(["run", "recipe.yml", "out", "--overwrite"], in: directory.path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        return try #require(try TestTensor.read("\(directory.path)/out")["layers.0.weight"])
    }

    private var configType: String? {
        get throws {
            try JSONText([UInt8](Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/out/config.json")))).string([
                "torch_dtype"
            ])
        }
    }

    private static let linear =
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 0.25}}\n- {model: b, parameters: {weight: 0.75}}\n"

    @Test(arguments: types, types + [nil])
    func linear(dtype: DType, output: DType?) async throws {
        let family = try writeFamily(dtype)
        let names: [DType: String] = [.f8E4M3: "float8_e4m3fn", .f8E5M2: "float8_e5m2"]
        let line = output.flatMap { names[$0] }.map { "out_dtype: \($0)\n" } ?? ""
        let merged = try await merge(Self.linear + line)
        #expect(merged.dtype == output ?? dtype)
        let means = zip(family.a.values, family.b.values).map { 0.25 * $0 + 0.75 * $1 }
        #expect(merged.bytes == means.map { Float8.code(of: $0, output ?? dtype) })
        #expect(try configType == names[output ?? dtype])
    }

    @Test func withAnotherType() async throws {
        let family = try writeFamily(.f8E4M3)
        let other = family.b.values.map { Float($0) }
        try TestTensor.writeCheckpoint(
            "\(directory.path)/b", [("layers.0.weight", TestTensor(bfloat16: other, shape: Self.shape))])
        let merged = try await merge(Self.linear)
        #expect(merged.dtype == .bf16)
        // Of eight bits and less: no rounding at all.
        let means = zip(family.a.values, other).map { 0.25 * $0 + 0.75 * Double($1) }
        #expect(zip(merged.values, means).allSatisfy { ($0 - $1).magnitude <= $1.magnitude * 0x1p-8 })
    }

    @Test(arguments: types)
    func ties(dtype: DType) async throws {
        let family = try writeFamily(dtype), base = family.base.values
        let merged = try await merge(
            "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1, density: 0.5}\n")
        let kept = [family.a.values, family.b.values].map { values -> [Double] in
            let vector = zip(values, base).map { $0 - $1 }
            let order = vector.indices.sorted { (-vector[$0].magnitude, $0) < (-vector[$1].magnitude, $1) }
            let stays = Set(order.prefix(vector.count / 2))
            return vector.indices.map { stays.contains($0) ? vector[$0] : 0 }
        }
        let expected = base.indices.map { index -> UInt8 in
            let entries = kept.map { $0[index] }, sum = entries.reduce(0, +)
            let agreeing = entries.filter { sum >= 0 ? $0 > 0 : $0 < 0 }
            return Float8.code(of: base[index] + agreeing.reduce(0, +) / Double(max(1, agreeing.count)), dtype)
        }
        #expect(merged.dtype == dtype && merged.bytes == expected)
    }

    /// Differences of a few steps fit bfloat16, in which a store of float8 models holds them.
    @Test(arguments: types)
    func throughAStore(dtype: DType) async throws {
        let family = try writeFamily(dtype)
        try directory.write(
            "sparsify: {method: magnitude, density: 1}\nbase_model: ./base\nmodels: [{model: ./a}, {model: ./b}]\n",
            to: "store.yml")
        let outcome = try await Tessera.run(["run", "store.yml", "store"], in: directory.path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try TestTensor.read("\(directory.path)/store")["layers.0.weight.values"]?.dtype == .bf16)
        #expect(try await merge("merge_method: passthrough\nmodels: [{model: './store#b'}]\n") == family.b)
    }

    @Test func withScalesIsRefusedUnlessCopied() async throws {
        let tensors = [
            ("layers.0.weight", TestTensor(float8: [1, -2, 448], .f8E4M3)), ("layers.0.weight_scale_inv", TestTensor([0.01])),
        ]
        for model in ["a", "b"] { try TestTensor.writeCheckpoint("\(directory.path)/\(model)", tensors) }
        try directory.write(Self.linear, to: "recipe.yml")
        let outcome = try await Tessera.run(["run", "recipe.yml", "out"], in: directory.path)
        #expect(outcome.exitCode == 65)
        for words in [
            "tensor 'layers.0.weight': has scaled float8 values in a, which need 'layers.0.weight_scale_inv'",
            "apply the scales first",
        ] { #expect(outcome.errors.contains(words), "\(outcome.errors)") }
        #expect(!directory.names.contains("out"))
        _ = try await merge("merge_method: passthrough\nmodels:\n- model: a\n")
        #expect(try TestTensor.read("\(directory.path)/out") == Dictionary(uniqueKeysWithValues: tensors))
    }
}
