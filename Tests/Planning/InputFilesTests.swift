import Checkpoints
import Core
import Foundation
import Planning
import TestSupport
import Testing
import Work

/// Planning reads its inputs through `InputFiles` alone.
@Suite struct InputFilesTests {
    private let family = MemoryFamily()
    private let weights = "/models/b/model.safetensors"

    private func problem(_ recipe: String = MemoryFamily.linear) -> TesseraError? {
        #expect(throws: (any Error).self) { try family.plan(recipe) }.map {
            ($0 as? Problems)?.all.first ?? TesseraError(wrapping: $0)
        }
    }

    /// Adapter, tokenizers and all, with no file on this machine's disk.
    @Test func aWholeMergeIsPlannedFromMemory() throws {
        for (model, text) in [("a", SmallTokenizers.first), ("b", SmallTokenizers.second)] {
            family.write(text, to: "\(model)/tokenizer.json")
        }
        family.write("{{ messages }}", to: "a/chat_template.jinja")
        family.writeAdapter("lora")
        let plan = try family.plan(
            "merge_method: linear\nmodels:\n- model: a\n- model: b+lora\nparameters: {weight: 0.5}\n"
                + "tokenizer_source: union\nchat_template: auto\n")
        #expect(plan.tensors.map(\.name).sorted() == MemoryFamily.tensors(0).map(\.0).sorted())
        #expect(plan.sidecars.map(\.name).contains("chat_template.jinja"))
        #expect(plan.files.count == 3)
        for file in plan.files { #expect(try family.files.status(of: "/\(file.path)")?.identity == file.version) }
    }

    @Test func memoryAndDiskGiveOnePlan() throws {
        let directory = try TemporaryDirectory()
        for model in ["a", "b"] {
            for name in ["model.safetensors", "config.json"] {
                let bytes = try family.files.read("/models/\(model)/\(name)", maxBytes: 1 << 20)
                try FileManager.default.createDirectory(
                    atPath: "\(directory.path)/\(model)", withIntermediateDirectories: true)
                try Data(bytes).write(to: URL(fileURLWithPath: "\(directory.path)/\(model)/\(name)"))
            }
        }
        let onDisk = try Planner.plan(
            PlanRequest(recipe: MemoryFamily.linear, recipeName: "recipe.yml", workingDirectory: directory.path))
        #expect(try family.plan(MemoryFamily.linear).digest == onDisk.digest)
    }

    @Test func aFileThatFailsIsNamed() {
        let failure = TesseraError(.io, "cannot read the file: Input/output error", file: weights)
        family.files.add(.failing(at: 20, failure), to: weights)
        #expect(problem() == failure)
        family.files.heal(weights)
        #expect(throws: Never.self) { try family.plan(MemoryFamily.linear) }
    }

    @Test func aFileThatEndsEarlyIsNamed() {
        family.files.add(.truncated(to: 20), to: weights)
        let found = problem()
        #expect(found?.code == .badData && found?.file == weights)
        #expect(found?.problem.hasPrefix("ends at byte 20") == true)
    }

    /// The plan pins the file that it has read, not the one that it saw first.
    @Test func aFileThatIsReplacedBeforeItIsOpenedIsTheNewOne() throws {
        let other = TestTensor.encode(MemoryFamily.tensors(7).reversed())
        family.files.add(.changing { [weights] in $0.write(other, to: weights) }, to: weights)
        let plan = try family.plan(MemoryFamily.linear)
        let file = try #require(plan.files.first { "/\($0.path)" == weights })
        #expect(file.version == (try family.files.status(of: weights))?.identity)
        #expect(file.headerDigest == (try SafetensorsHeader.read(path: weights, in: family.files)).digest)
    }

    @Test func aFileThatIsRemovedBeforeItIsOpenedIsMissing() {
        family.files.add(.changing { [weights] in $0.remove(weights) }, to: weights)
        #expect(problem()?.code == .inputMissing)
        // Nor is a config left out because it could not be read.
        let other = MemoryFamily(), config = "/models/a/config.json"
        other.files.add(.changing { $0.remove(config) }, to: config)
        #expect(throws: (any Error).self) { try other.plan(MemoryFamily.linear) }
    }
}
