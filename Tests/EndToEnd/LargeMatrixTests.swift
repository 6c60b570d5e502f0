import Foundation
import Operators
import TestSupport
import Testing

/// A matrix of 60,000 × 4,096 elements by every method that computes with matrices, as far as the plan: files of zeros that take
/// no space stand for the models.
@Suite struct LargeMatrixTests {
    private static let methods = MergeMethods.all.filter { $0.usesLinearAlgebra && $0.inputs.base == .required }.map { $0.name }
    /// They leave a matrix with a side of 20,000 to the mean.
    private static let averaging = ["ace", "actmat", "tact"]
    /// It counts magnitudes first, in little memory; its merge is judged when that is planned.
    private static let counting = ["doge"]

    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        let shape = "[60000,4096]", name = "model.layers.0.mlp.up_proj.weight", bytes = 60_000 * 4_096 * 2
        let header = Array(#"{"\#(name)":{"dtype":"BF16","shape":\#(shape),"data_offsets":[0,\#(bytes)]}}"#.utf8)
        let start = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header
        for model in ["base", "tune-0", "tune-1"] {
            let path = "\(directory.path)/\(model)"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try Data(#"{"model_type": "test", "torch_dtype": "bfloat16"}"#.utf8).write(
                to: URL(fileURLWithPath: "\(path)/config.json"))
            try Data(start).write(to: URL(fileURLWithPath: "\(path)/model.safetensors"))
            let file = try #require(FileHandle(forUpdatingAtPath: "\(path)/model.safetensors"))
            try file.truncate(atOffset: UInt64(start.count + bytes))
            try file.close()
        }
    }

    private func recipe(_ method: String) throws -> String {
        try directory.write(
            "merge_method: \(method)\nbase_model: base\nmodels: [{model: tune-0}, {model: tune-1}]\n", to: "\(method).yml")
    }

    private struct Plan: Decodable {
        let bytesMemory: Int
    }

    @Test func withinTheBudgetThereIsAPlanAndBeyondARefusal() async throws {
        #expect(Self.methods.count >= 18)
        for method in Self.methods {
            let path = try recipe(method)
            let planned = try await Tessera.run(["plan", path, "--json"], in: directory.path)
            #expect(planned.exitCode == 0, "\(method): \(planned.errors)")
            let needed = try JSONDecoder().decode(Plan.self, from: Data(planned.output.utf8)).bytesMemory
            let isSmall = (Self.averaging + Self.counting).contains(method)
            // A matrix of all columns of both task vectors stands for the tall one, but where single entries count.
            #expect(isSmall ? needed < 100 << 20 : (1 << 29..<64 << 30).contains(needed), "\(method): \(needed) bytes")
            guard !isSmall else { continue }
            let refused = try await Tessera.run(["run", path, "out", "--memory", "256MiB"], in: directory.path)
            #expect(refused.exitCode == 64, "\(method)")
            #expect(
                refused.errors.contains("tensor 'model.layers.0.mlp.up_proj.weight': the job needs")
                    && refused.errors.contains("start it with --memory"), "\(method): \(refused.errors)")
            #expect(!FileManager.default.fileExists(atPath: "\(directory.path)/out"))
        }
    }
}
