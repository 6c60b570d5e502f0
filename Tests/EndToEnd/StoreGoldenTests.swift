import Core
import Foundation
import TestSupport
import Testing

/// What an independent reference in float64 made of the recipes in `Tests/Golden/seed-cases`: fine-tunes rebuilt from stores of task
/// vectors, and the codes of quantized ones.
@Suite struct StoreGoldenTests {
    /// The cases that read different tasks of one store.
    struct Family: Sendable, CustomTestStringConvertible {
        let recipe: String
        /// Tasks by the name of their case.
        var tasks: [String: String] = [:]
        var testDescription: String { tasks.keys.sorted().first ?? "" }
    }

    private static let cases = "\(Repository.golden)/seed-cases"

    static let families: [Family] = {
        var families: [String: Family] = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: cases)) ?? [] {
            let text = (try? String(contentsOfFile: "\(cases)/\(name)/recipe.yml", encoding: .utf8)) ?? ""
            var lines = text.split(separator: "\n").map(String.init)
            // The key is for the test and no part of the recipe.
            guard let index = lines.firstIndex(where: { $0.hasPrefix("read: ") }) else { continue }
            let task = String(lines.remove(at: index).dropFirst(6)), recipe = lines.joined(separator: "\n") + "\n"
            families[recipe, default: Family(recipe: recipe)].tasks[name] = task
        }
        return families.values.sorted { $0.testDescription < $1.testDescription }
    }()

    @Test func thereAreCases() {
        #expect(Self.families.count == 9)
        #expect(Self.families.reduce(0) { $0 + $1.tasks.count } == 23)
    }

    @Test(arguments: families)
    func matches(_ family: Family) async throws {
        let directory = try TemporaryDirectory()
        let recipe = try directory.write(family.recipe, to: "store.yml"), store = "\(directory.path)/store"
        let made = try await Tessera.run(["run", recipe, store])
        try #require(made.exitCode == 0, "\(made.errors)")
        #expect(try await Tessera.run(["verify", store]).exitCode == 0)
        for (name, task) in family.tasks.sorted(by: { $0.key < $1.key }) {
            let rebuilding = try directory.write(StoreBench.rebuilding("\(store)#\(task)"), to: "\(name).yml")
            let output = "\(directory.path)/\(name)"
            let outcome = try await Tessera.run(["run", rebuilding, output])
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
            let differences = Comparison.differences(
                try TestTensor.read(output), from: try TestTensor.read("\(Self.cases)/\(name)/expected.safetensors"), rtol: 2e-6)
            #expect(differences == [], "\(name)")
            try expectCodes(of: name, in: StoreOnDisk(store), task: task)
        }
    }

    private func expectCodes(of name: String, in store: StoreOnDisk, task: String) throws {
        let file = "\(Self.cases)/\(name)/codes.safetensors"
        guard FileManager.default.fileExists(atPath: file) else { return }
        let parts = try store.parts(of: task)
        let bits = try #require(Int(name.split(separator: "-")[1]))
        var misses = 0, total = 0
        let expected = try TestTensor.read(file)
        for (tensor, codes) in expected {
            let stream = try #require(parts["\(tensor).codes"], "\(tensor)").bytes
            #expect(stream.count == (codes.bytes.count * bits + 7) / 8, "\(tensor)")
            let found = StoreOnDisk.codes(stream, bits: bits, count: codes.bytes.count)
            misses += zip(found, codes.bytes).count { $0 != Int($1) }
            total += found.count
        }
        #expect(parts.keys.count { $0.hasSuffix(".codes") } == expected.count, "as many tensors are quantized")
        // At 8 bits, products in float32 and float64 round to different codes now and then.
        #expect(misses <= (bits == 8 ? (total + 999_999) / 1_000_000 : 0), "\(name): \(misses) of \(total)")
    }
}
