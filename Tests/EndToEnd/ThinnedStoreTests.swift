import Core
import Foundation
import TestSupport
import Testing

/// Stores of tenths of a bit: a budget that covers everything on disk, thinned vectors, and small ones that are packed.
@Suite(.serialized) struct ThinnedStoreTests {
    private let bench: StoreBench
    private static let shapes = ["a.weight": [96, 64], "b.weight": [200, 150], "c.bias": [96], "d.norm": [33]]
    private static let parameters = shapes.values.reduce(0) { $0 + $1.reduce(1, *) }

    /// A base and three fine-tunes.
    init() throws {
        bench = try StoreBench()
        for (tune, name) in ["base", "one", "two", "three"].enumerated() {
            var tensors: [(String, TestTensor)] = [("ids", TestTensor(.i64, [2], bytes: [UInt8](repeating: 1, count: 16)))]
            for (seed, (tensor, shape)) in Self.shapes.sorted(by: { $0.key < $1.key }).enumerated() {
                var base = SplitMix(seed: UInt64(seed)), own = SplitMix(seed: UInt64(100 + seed + 10 * tune))
                tensors.append(
                    (
                        tensor,
                        TestTensor(
                            (0..<shape.reduce(1, *)).map { _ in
                                let value = Float.random(in: -1...1, using: &base)
                                return tune == 0 ? value : value + Float.random(in: -0.05...0.05, using: &own)
                            }, shape: shape)
                    ))
            }
            try TestTensor.writeCheckpoint("\(bench.path)/\(name)", tensors)
        }
    }

    private func recipe(_ budget: String, _ tasks: [String], extend: Bool = false) -> String {
        StoreBench.recipe("quantize: {budget: \(budget)}", tasks) + (extend ? "extend: store\n" : "")
    }

    private func bytes(of store: String) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "\(bench.path)/\(store)").reduce(0) {
            try $0 + Data(contentsOf: URL(fileURLWithPath: "\(bench.path)/\(store)/\($1)")).count
        }
    }

    private func index(_ store: String) throws -> [String: Any] {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(bench.path)/\(store)/task-vectors.json"))
        return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    private func change(_ file: String, _ change: (inout Data) -> Void) throws {
        let url = URL(fileURLWithPath: "\(bench.path)/\(file)")
        var data = try Data(contentsOf: url)
        change(&data)
        try data.write(to: url)
    }

    /// Everything that lies there is counted, but for 16 KiB.
    @Test(arguments: [("1.5 bits", 1.5), ("0.6", 0.6), ("0.3 bits", 0.3), ("1%", 0.32)])
    func theBudgetCoversEverything(text: String, bits: Double) async throws {
        let tasks = ["one", "two", "three"]
        try await bench.run(recipe(text, tasks), to: "store")
        let allowed = Int(bits * Double(Self.parameters * tasks.count)) / 8 + 16 << 10
        let found = try bytes(of: "store")
        #expect(found <= allowed, "\(text): \(found) of \(allowed) bytes")
        // And is used: what is left is no more than the report may vary by, and the next larger format of a small tensor.
        #expect(found > allowed - (16 << 10) - 1500, "\(text): \(found) of \(allowed) bytes")
        let json = try index("store")
        let forms = try #require(json["forms"] as? [[String: Any]]), told = try #require(json["tasks"] as? [[String: Any]])
        #expect(json["version"] as? Int == 2 && (bits > 1 || forms.contains { $0["every"] as? Int ?? 1 > 1 }), "\(forms)")
        for task in told {
            let bias = try #require(task["bias"] as? Double)
            #expect(bias.magnitude < 0.005, "\(bias)")
        }
        #expect(try await Tessera.run(["verify", "\(bench.path)/store"]).exitCode == 0)
    }

    /// The same vectors from a merge that reads the store, whatever reads them, and on any seed another mask.
    @Test func mergesAndExtensions() async throws {
        try await bench.run(recipe("0.8 bits", ["one", "two"]), to: "store")
        let merge = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: store#two}]\nparameters: {weight: 1}\n"
        try await bench.run(merge, to: "merged")
        try await bench.run("merge_method: passthrough\nmodels: [{model: store#two}]\n", to: "rebuilt")
        let merged = try TestTensor.read("\(bench.path)/merged"), rebuilt = try TestTensor.read("\(bench.path)/rebuilt")
        #expect(merged == rebuilt)
        let base = try TestTensor.read("\(bench.path)/base")
        #expect(zip(base, rebuilt).contains { $0 != $1 })

        // A task that is added later has the vector that it would have had, and the others keep their bytes.
        try await bench.run(recipe("0.8 bits", ["three"], extend: true), to: "more")
        #expect(try index("more")["version"] as? Int == 2)
        #expect(try await Tessera.run(["verify", "\(bench.path)/more"]).exitCode == 0)
        for (task, source) in [("two", "more"), ("three", "more")] {
            try await bench.run("merge_method: passthrough\nmodels: [{model: \(source)#\(task)}]\n", to: "again-\(task)")
        }
        #expect(try TestTensor.read("\(bench.path)/again-two") == rebuilt)
        try await bench.run(recipe("0.8 bits", ["one", "two"]), to: "seeded", ["--seed", "1"])
        try await bench.run("merge_method: passthrough\nmodels: [{model: seeded#two}]\n", to: "again-seeded")
        #expect(try TestTensor.read("\(bench.path)/again-seeded") != rebuilt)
    }

    /// Tasks with common masks keep the same elements of a matrix, also one that is added later if it keeps one of as many, and
    /// `ties` of them is that of the kept elements. Where masks differ, the plan says so.
    @Test func commonMasks() async throws {
        try await bench.run(recipe("0.9 bits, masks: common", ["one", "two"]), to: "common")
        try await bench.run(recipe("0.9 bits", ["one", "two"]), to: "own")
        let base = try TestTensor.read("\(bench.path)/base")
        func kept(_ store: String, _ task: String) async throws -> Set<Int> {
            let output = "\(store)-\(task)"
            try await bench.run("merge_method: passthrough\nmodels: [{model: \(store)#\(task)}]\n", to: output)
            let tuned = try TestTensor.read("\(bench.path)/\(output)")
            let values = try #require(tuned["b.weight"]).values, before = try #require(base["b.weight"]).values
            return Set(values.indices.filter { values[$0] != before[$0] })
        }
        let one = try await kept("common", "one"), two = try await kept("common", "two")
        // A kept element may be the base's by rounding.
        #expect(one.count > 2000 && one.count < 20_000 && one.intersection(two).count > one.count * 9 / 10)
        let own = try await kept("own", "one"), other = try await kept("own", "two")
        #expect(own.intersection(other).count < own.count * 9 / 10, "\(own.count), \(other.count)")
        for (store, isTold) in [("common", false), ("own", true)] {
            try bench.directory.write(
                "merge_method: ties\nbase_model: base\nmodels: [{model: \(store)#one}, {model: \(store)#two}]\n"
                    + "parameters: {weight: 0.5, density: 0.3}\n", to: "ties.yml")
            let outcome = try await Tessera.run(["plan", "ties.yml"], in: bench.path)
            #expect(outcome.exitCode == 0 && outcome.output.contains("masks: common") == isTold, "\(outcome)")
        }
    }

    /// Damage is found and named, and a file that does not fit its index is not read.
    @Test func damageIsNamed() async throws {
        try await bench.run(recipe("0.8 bits", ["one", "two"]), to: "store")
        try change("store/one.packed") { $0[$0.count - 3] ^= 4 }
        let outcome = try await Tessera.run(["verify", "\(bench.path)/store"])
        #expect(outcome.exitCode != 0 && (outcome.output + outcome.errors).contains("one.packed"), "\(outcome)")
        try change("store/one.packed") { $0.removeLast() }
        try bench.directory.write("merge_method: passthrough\nmodels: [{model: store#two}]\n", to: "two.yml")
        let refused = try await Tessera.run(["run", "two.yml", "out"], in: bench.path)
        #expect(refused.exitCode == 65 && refused.errors.contains("one.packed"), "\(refused.errors)")
    }

    /// A vector with tensors of its own is found by its name, too.
    @Test func damageOfATensorIsNamed() async throws {
        try await bench.run(recipe("2.5 bits, thin: true", ["one", "two"]), to: "store")
        try change("store/two.safetensors") { $0[$0.count - 5] ^= 4 }
        let outcome = try await Tessera.run(["verify", "\(bench.path)/store"]), text = outcome.output + outcome.errors
        #expect(outcome.exitCode != 0 && text.contains("two.safetensors") && text.contains("b.weight."), "\(text)")
    }

    /// The last line of a run does not say that a store whose vectors are all packed is of no size.
    @Test func allMayBePacked() async throws {
        try bench.directory.write(recipe("0.3 bits", ["one", "two"]), to: "store.yml")
        let outcome = try await Tessera.run(["run", "store.yml", "store"], in: bench.path)
        #expect(outcome.exitCode == 0 && outcome.output.contains("store: made by tvq"), "\(outcome)")
    }

    /// Less than the description of the vectors takes is no budget.
    @Test func aBudgetThatIsTooSmallIsRefused() async throws {
        try bench.directory.write(recipe("0.0001 bits", ["one"]), to: "small.yml")
        let outcome = try await Tessera.run(["run", "small.yml", "out"], in: bench.path)
        #expect(outcome.exitCode == 65 && outcome.errors.contains("the smallest formats need"), "\(outcome.errors)")
        try bench.directory.write(
            "quantize: {scheme: rtvq, budget: 1 bits, thin: true}\nbase_model: base\nmodels: [{model: one}]\n", to: "rtvq.yml")
        let other = try await Tessera.run(["run", "rtvq.yml", "out"], in: bench.path)
        #expect(other.exitCode == 65 && other.errors.contains("'thin' does not apply to 'rtvq'"), "\(other.errors)")
    }
}
