import Core
import Foundation
import TestSupport
import Testing

/// Damaged outputs become, byte for byte, what they were; or nothing changes.
@Suite(.serialized) struct RepairTests {
    private let directory: TemporaryDirectory
    private var output: String { "\(directory.path)/out" }

    init() throws { directory = try TemporaryDirectory() }

    private func make(_ recipe: String, _ arguments: [String] = [], models: [String: Float] = ["a": 1, "b": 2]) async throws {
        for (model, factor) in models {
            let layers = (0..<6).map { layer in
                let values = (0..<20_000).map { index in
                    let whole = Float((index * 31 + layer) % 97)
                    return whole * factor / Float(1 + index % 5)
                }
                return ("layers.\(layer).w", TestTensor(values))
            }
            try TestTensor.writeCheckpoint("\(directory.path)/\(model)", layers)
        }
        try directory.write(recipe, to: "r.yml")
        let outcome = try await Tessera.run(["run", "r.yml", "out"] + arguments, in: directory.path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
    }

    private func repair(_ arguments: [String] = []) async throws -> Tessera.Outcome {
        try await Tessera.run(["verify", "out", "--repair", "r.yml"] + arguments, in: directory.path)
    }

    /// Every file of the output, those in folders as well.
    private func contents() throws -> [String: Data] {
        var files: [String: Data] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: output) {
            files[name] = FileManager.default.contents(atPath: "\(output)/\(name)")
        }
        return files
    }

    private func flip(_ name: String, at position: Int) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: "\(output)/\(name)"))
        let end = Int(try handle.seekToEnd()), offset = UInt64(position < 0 ? end + position : position)
        try handle.seek(toOffset: offset)
        let byte = try #require(try handle.read(upToCount: 1)?.first)
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: [byte ^ 1])
        try handle.close()
    }

    private func truncate(_ name: String, to size: UInt64) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: "\(output)/\(name)"))
        try handle.truncate(atOffset: size)
        try handle.close()
    }

    private static let parts = ["--max-part-size", "200KB"]
    private static func part(_ number: Int) -> String { "model-0000\(number)-of-00003.safetensors" }

    @Test func everyKindOfDamageIsMended() async throws {
        try await make(
            "merge_method: dare_ties\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.5}\n",
            Self.parts + ["--seed", "7", "--sha256sums"])
        let good = try contents()
        try #require(good[Self.part(3)] != nil)
        let nothing = try await repair(Self.parts + ["--seed", "7"])
        #expect(nothing.exitCode == 0 && !nothing.output.contains("mended"), "\(nothing.errors)")

        try flip(Self.part(1), at: -5)
        try flip(Self.part(1), at: 20)
        try truncate(Self.part(2), to: 100_000)
        try FileManager.default.removeItem(atPath: "\(output)/\(Self.part(3))")
        try flip("recipe.yml", at: 3)
        // What a repair that was killed has left.
        try Data(count: 10).write(to: URL(fileURLWithPath: "\(output)/\(Self.part(1)).repair"))
        // Of somebody else.
        try Data().write(to: URL(fileURLWithPath: "\(output)/note"))

        // Another seed makes other tensors: nothing changes, although small files could be mended.
        let damaged = try contents()
        let refused = try await repair(Self.parts + ["--seed", "8"])
        #expect(refused.exitCode == 65 && refused.errors.contains("comes out otherwise"), "\(refused.errors)")
        #expect(try contents() == damaged.filter { !$0.key.hasSuffix(".repair") })

        let outcome = try await repair(Self.parts + ["--seed", "7", "--json"])
        #expect(outcome.exitCode == 1, "a file that does not belong there is not removed: \(outcome.errors)")
        struct Report: Decodable {
            struct Finding: Decodable { let kind, file: String }
            let findings: [Finding], mendedFiles: [String]
        }
        let report = try JSONDecoder().decode(Report.self, from: Data(outcome.output.utf8))
        #expect(report.mendedFiles == [Self.part(1), Self.part(2), Self.part(3), "recipe.yml"])
        #expect(report.findings.map(\.kind) == ["extra"] && report.findings.map(\.file) == ["note"])
        try FileManager.default.removeItem(atPath: "\(output)/note")
        #expect(try contents() == good)
    }

    /// Sizes and factors of a store follow from analysis stages, its index from all of its tensors.
    @Test func aStoreIsMended() async throws {
        try await make(
            "sparsify: {method: dare, density: 0.5}\nbase_model: a\nmodels:\n- model: b\n- model: c\n",
            models: ["a": 1, "b": 2, "c": -3])
        let good = try contents()
        let vectors = try #require(good.keys.filter { $0.hasSuffix(".safetensors") }.sorted().last)
        try flip(vectors, at: -40_000)
        try flip("task-vectors.json", at: 50)
        let outcome = try await repair()
        #expect(outcome.exitCode == 0 && outcome.output.contains("\(vectors): mended"), "\(outcome.errors)\(outcome.output)")
        #expect(try contents() == good)
    }

    @Test func aSweepIsMended() async throws {
        try await make(
            "merge_method: task_arithmetic\nbase_model: a\nmodels:\n- model: b\n  parameters: {weight: 1}\nparameters:\n"
                + "  lambda: {sweep: [0.5, 1]}\n")
        let good = try contents()
        for name in good.keys where name.contains("/") && name != "tessera.report.json" { try flip(name, at: 30) }
        let outcome = try await repair()
        #expect(outcome.exitCode == 0, "\(outcome.errors)\(outcome.output)")
        #expect(try contents() == good)
    }

    /// A part that came from an earlier store is taken from there again.
    @Test func aReusedPartIsMended() async throws {
        try await make(
            "quantize: {bits: 4}\nbase_model: a\nmodels:\n- model: b\n", models: ["a": 1, "b": 2, "c": 3])
        try FileManager.default.moveItem(atPath: output, toPath: "\(directory.path)/first")
        try await make(
            "quantize: {bits: 4}\nbase_model: a\nextend: first\nmodels:\n- model: c\n",
            models: [:])
        let good = try contents(), parts = good.keys.filter { $0.hasSuffix(".safetensors") }
        for part in parts {
            // A file of its own, not the same under two names.
            try FileManager.default.removeItem(atPath: "\(output)/\(part)")
            try good[part]?.write(to: URL(fileURLWithPath: "\(output)/\(part)"))
            try flip(part, at: -10)
        }
        let outcome = try await repair()
        #expect(outcome.exitCode == 0, "\(outcome.errors)\(outcome.output)")
        #expect(try contents() == good)
    }

    @Test func otherInputsAreRefused() async throws {
        try await make("merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n")
        try flip("model.safetensors", at: -5)
        let damaged = try contents()
        let weights = "\(directory.path)/b/model.safetensors"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: weights))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(fileURLWithPath: weights))
        let outcome = try await repair()
        #expect(
            outcome.exitCode == 65 && outcome.errors.contains("the input b/model.safetensors is another now"), "\(outcome.errors)"
        )
        try directory.write("merge_method: linear\nmodels:\n- model: a\nparameters: {weight: 0.5}\n", to: "r.yml")
        let other = try await repair(["--max-part-size", "200KB"])
        #expect(other.exitCode == 65 && other.errors.contains("it has 1 parts, and the recipe makes 3"), "\(other.errors)")
        #expect(try contents() == damaged)
    }

    /// Killed at any moment, a file is what it was or good, and the next repair ends the work.
    @Test func aRepairThatIsKilledLeavesTheOldOrTheGood() async throws {
        try LargeFamily.write(to: directory)
        let made = try await Tessera.run(["run", "r.yml", "out"], in: directory.path)
        try #require(made.exitCode == 0, "\(made.errors)")
        let part = "model.safetensors", good = try contents()
        for layer in 0..<24 { try flip(part, at: -1 - layer * LargeFamily.layerBytes) }
        let damaged = try contents()
        for milliseconds in [100, 300, 600] {
            let repair = try RunningTessera(["verify", "out", "--repair", "r.yml", "--threads", "1"], in: directory.path)
            try await Task.sleep(for: .milliseconds(milliseconds))
            repair.signal(SIGKILL)
            _ = await repair.exitCode()
            let now = try contents()[part]
            #expect(now == damaged[part] || now == good[part])
        }
        let outcome = try await repair()
        #expect(outcome.exitCode == 0, "\(outcome.errors)\(outcome.output)")
        #expect(try contents() == good)
    }
}
