import Core
import Foundation
import TestSupport
import Testing

/// Stores of task vectors: what they cost on disk, how they grow, and what is said of those that are damaged or do not fit.
@Suite(.serialized) struct StoreTests {
    private let bench: StoreBench
    private static let shapes = ["layers.0.weight": [48, 33], "layers.1.weight": [20, 64], "norm.weight": [33]]

    /// A base and three fine-tunes.
    init() throws {
        bench = try StoreBench()
        try write("base", tensors(tune: nil))
        for tune in 0..<3 { try write("tune-\(tune)", tensors(tune: UInt64(tune))) }
    }

    private func write(_ model: String, _ tensors: [String: TestTensor]) throws {
        try TestTensor.writeCheckpoint("\(bench.path)/\(model)", tensors.sorted { $0.key < $1.key })
    }

    private func tensors(tune: UInt64?) -> [String: TestTensor] {
        var tensors: [String: TestTensor] = ["ids": TestTensor(.i64, [2], bytes: [UInt8](repeating: 1, count: 16))]
        for (seed, (name, shape)) in Self.shapes.sorted(by: { $0.key < $1.key }).enumerated() {
            var base = SplitMix(seed: UInt64(seed)), own = SplitMix(seed: 100 + UInt64(seed) + 10 * (tune ?? 0))
            let values = (0..<shape.reduce(1, *)).map { _ in
                let value = Float.random(in: -1...1, using: &base), change = Float.random(in: -0.05...0.05, using: &own)
                return tune == nil ? value : value + change
            }
            tensors[name] = TestTensor(values, shape: shape)
        }
        return tensors
    }

    private static let three = ["tune-0", "tune-1", "tune-2"]

    private func makeStore(_ how: String = "quantize: {bits: 4, group: 32}", _ tasks: [String] = three) async throws {
        try await bench.run(StoreBench.recipe(how, tasks), to: "store", ["--overwrite"])
    }

    /// Runs and expects a refusal that says this much, and that leaves nothing behind.
    private func expectRefusal(
        _ recipe: String, _ code: Int32, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        try bench.directory.write(recipe, to: "refused.yml")
        let outcome = try await Tessera.run(["run", "refused.yml", "refused"], in: bench.path)
        #expect(outcome.exitCode == code, "\(outcome.errors)", sourceLocation: sourceLocation)
        for word in words { #expect(outcome.errors.contains(word), "\(outcome.errors)", sourceLocation: sourceLocation) }
        #expect(
            !bench.directory.names.contains { $0.hasPrefix("refused") && $0 != "refused.yml" }, sourceLocation: sourceLocation)
    }

    private func change(_ file: String, _ change: (inout Data) -> Void) throws {
        let url = URL(fileURLWithPath: "\(bench.path)/\(file)")
        var data = try Data(contentsOf: url)
        change(&data)
        try data.write(to: url)
    }

    // MARK: Bases that are not the right one

    /// Adds a task vector to the base that is named, not to the one that the store names.
    private static func based(_ base: String) -> String {
        "merge_method: task_arithmetic\nbase_model: \(base)\nmodels:\n- model: store#tune-0\nparameters: {weight: 1}\n"
    }

    @Test func anotherBaseIsRefused() async throws {
        try await makeStore()
        var other = tensors(tune: nil)
        other["layers.0.weight"] = tensors(tune: 1)["layers.0.weight"]
        try write("other", other)
        // Of the same shapes: only the data tells.
        try await expectRefusal(
            Self.based("other"), 65, "tensor 'layers.0.weight'",
            "not the one that the store's task vectors were taken from", "base_model")
        try await expectRefusal(
            "merge_method: ties\nbase_model: other\nmodels:\n- model: store#tune-0\n- model: store#tune-1\n"
                + "parameters: {weight: 1, density: 0.5}\n", 65, "tensor 'layers.0.weight'", "not the one")
        // Of other shapes or names: the headers tell.
        other["layers.0.weight"] = TestTensor([Float](repeating: 1, count: 48 * 33), shape: [33, 48])
        try write("other", other)
        try await expectRefusal(
            Self.based("other"), 65, "tensor 'layers.0.weight'",
            "'other' is not the base of the store", "'base'")
        other["layers.0.weight"] = nil
        try write("other", other)
        try await expectRefusal(
            Self.based("other"), 65, "tensor 'layers.0.weight'", "is not the base")
        var more = tensors(tune: nil)
        more["extra"] = TestTensor([1])
        try write("other", more)
        try await expectRefusal(
            Self.based("other"), 65, "tensor 'extra'", "is not the base")
    }

    /// The base may have moved: then the recipe says where it is.
    @Test func aBaseThatMoved() async throws {
        try await makeStore()
        try await bench.run(Self.based("base"), to: "before")
        try FileManager.default.moveItem(atPath: "\(bench.path)/base", toPath: "\(bench.path)/moved")
        try await expectRefusal(StoreBench.rebuilding("store#tune-0"), 66, "base")
        try await bench.run(Self.based("moved"), to: "again")
        #expect(try TestTensor.read("\(bench.path)/again") == TestTensor.read("\(bench.path)/before"))
    }

    // MARK: Damage

    @Test func aFlippedBitIsFound() async throws {
        try await makeStore()
        let store = try StoreOnDisk("\(bench.path)/store")
        for task in store.index.tasks {
            let file = "store/\(try #require(task.files.first))"
            let last = try #require(try TestTensor.read("\(bench.path)/\(file)").keys.max())
            #expect(try await Tessera.run(["verify", "store"], in: bench.path).exitCode == 0)
            try change(file) { $0[$0.count - 1] ^= 1 }
            let outcome = try await Tessera.run(["verify", "store"], in: bench.path)
            #expect(outcome.exitCode == 1, "\(outcome.errors)")
            let said = outcome.errors + outcome.output
            #expect(store.index.tensors.contains { said.contains("'\($0.name)") }, "\(said), \(last)")
            try change(file) { $0[$0.count - 1] ^= 1 }
        }
        for file in ["task-vectors.json", "recipe.yml", "README.md"] {
            try change("store/\(file)") { $0[$0.count / 2] ^= 1 }
            let outcome = try await Tessera.run(["verify", "store"], in: bench.path)
            #expect(outcome.exitCode == 1 && (outcome.errors + outcome.output).contains(file), "\(outcome)")
            try change("store/\(file)") { $0[$0.count / 2] ^= 1 }
        }
    }

    @Test func aDamagedIndexIsRefused() async throws {
        let rebuilding = StoreBench.rebuilding("store#tune-0")
        let damages: [(String, (inout String) -> Void)] = [
            ("is not the index of a store", { $0 = String($0.dropLast(10)) }),
            ("is not the index of a store", { $0.replace("tessera.task-vectors", with: "something.else") }),
            ("format version 7", { $0.replace("\"version\":1", with: "\"version\":7") }),
            ("is damaged", { $0.replace("\"bits\":4", with: "\"bits\":9") }),
            ("is damaged", { $0.replace("\"group\":32", with: "\"group\":33") }),
            ("is damaged", { $0.replace("\"files\":[\"", with: "\"files\":[\"../") }),
            ("do not hold it as the index says", { $0.replace("\"bits\":4", with: "\"bits\":5") }),
        ]
        for (words, damage) in damages {
            try await makeStore()
            var text = try String(contentsOfFile: "\(bench.path)/store/task-vectors.json", encoding: .utf8)
            let before = text
            damage(&text)
            #expect(text != before)
            try bench.directory.write(text, to: "store/task-vectors.json")
            try await expectRefusal(rebuilding, 65, words, "store")
        }
        // Of forms there are as many as tensors.
        try await makeStore()
        let url = URL(fileURLWithPath: "\(bench.path)/store/task-vectors.json")
        var index = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any])
        index["tensors"] = (index["tensors"] as? [Any])?.dropLast().map(\.self)
        try JSONSerialization.data(withJSONObject: index).write(to: url)
        try await expectRefusal(rebuilding, 65, "it contradicts itself")
    }

    @Test func missingAndShortenedFilesAreRefused() async throws {
        try await makeStore()
        let file = "store/\(try #require(try StoreOnDisk("\(bench.path)/store").task("tune-0").files.first))"
        try change(file) { $0.removeLast() }
        try await expectRefusal(StoreBench.rebuilding("store#tune-0"), 65, file)
        try FileManager.default.removeItem(atPath: "\(bench.path)/\(file)")
        try await expectRefusal(StoreBench.rebuilding("store#tune-0"), 66, file)
        try FileManager.default.removeItem(atPath: "\(bench.path)/store/task-vectors.json")
        try await expectRefusal(
            StoreBench.rebuilding("store#tune-0"), 66, "holds no store of task vectors", "'quantize' or 'sparsify'")
    }

    @Test func unknownTasksAndModelsWithoutTask() async throws {
        try await makeStore()
        try await expectRefusal(
            StoreBench.rebuilding("store#tune-7"), 66, "no task 'tune-7'", "it has tune-0, tune-1, tune-2")
        try await expectRefusal(StoreBench.rebuilding("base#tune-0"), 66, "holds no store of task vectors")
        try await expectRefusal(StoreBench.rebuilding("'store#'"), 65, "not a model reference")
        try await expectRefusal(
            StoreBench.rebuilding("store"), 65, "refused.yml:3: store: is a task-vector store", "'store#TASK'")
    }

    // MARK: Fine-tunes that do not fit

    @Test(arguments: [
        "quantize: {bits: 3}", "quantize: {bits: 3, group: row}", "quantize: {bits: 3, group: 64}",
        "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}", "quantize: {budget: 3 bits}",
        "sparsify: {method: magnitude, density: 0.1}", "sparsify: {method: magnitude, density: 0.1, scope: model}",
        "sparsify: {method: dare, density: 0.1}", "sparsify: {method: cabs, n: 1, m: 8}", "sparsify: {method: tall}",
        "sparsify: {method: emr}",
    ])
    func numbersThatAreNotFiniteAreRefused(how: String) async throws {
        for bad in [Float.nan, .infinity] {
            for (model, name) in [("tune-1", "layers.1.weight"), ("base", "layers.0.weight"), ("tune-0", "norm.weight")] {
                let whole = tensors(tune: model == "base" ? nil : UInt64(model.suffix(1)))
                var broken = whole
                let shape = Self.shapes[name] ?? []
                var values = [Float](repeating: 0.5, count: shape.reduce(1, *))
                values[values.count - 2] = bad
                broken[name] = TestTensor(values, shape: shape)
                try write(model, broken)
                try await expectRefusal(
                    StoreBench.recipe(how, Self.three), 65, "tensor '\(name)'", "numbers that are not finite",
                    "repair the checkpoint")
                try write(model, whole)
            }
        }
    }

    @Test func shapesAndNamesThatDiffer() async throws {
        var other = tensors(tune: 1)
        other["layers.1.weight"] = TestTensor([Float](repeating: 1, count: 20 * 64), shape: [64, 20])
        other["norm.weight"] = nil
        other["more"] = TestTensor([1])
        try write("tune-1", other)
        try await expectRefusal(
            StoreBench.recipe("quantize: {bits: 3}", Self.three), 65,
            "tensor 'layers.1.weight': has shape [20, 64] in the base and [64, 20] in tune-1",
            "tensor 'norm.weight': missing in tune-1", "tensor 'more': is in tune-1 but not in the base")
    }

    @Test func integersThatDifferAreListed() async throws {
        var other = tensors(tune: 1)
        other["ids"] = TestTensor(.i64, [2], bytes: [UInt8](repeating: 2, count: 16))
        try write("tune-1", other)
        for how in ["quantize: {bits: 3}", "sparsify: {method: dare, density: 0.5}", "quantize: {budget: 4 bits}"] {
            try await makeStore(how)
            let store = try StoreOnDisk("\(bench.path)/store")
            #expect(store.index.tasks.map(\.lost) == [[], ["ids"], []], "\(how)")
            // The rebuilt fine-tune has the base's.
            #expect(try await bench.rebuilt("tune-1", from: "store")["ids"] == tensors(tune: nil)["ids"], "\(how)")
        }
    }

    // MARK: Growing

    private func relativeError(_ task: String, from store: String) async throws -> Double {
        let read = try await bench.rebuilt(task, from: store), base = tensors(tune: nil)
        let own = tensors(tune: UInt64(task.suffix(1)))
        var error = 0.0, energy = 0.0
        for (name, tensor) in own where tensor.dtype == .f32 {
            let found = try #require(read[name]).values, unchanged = try #require(base[name]).values
            for (value, (found, unchanged)) in zip(tensor.values, zip(found, unchanged)) {
                error += (value - found) * (value - found)
                energy += (value - unchanged) * (value - unchanged)
            }
        }
        return error / energy
    }

    @Test(arguments: [
        ("quantize: {bits: 4, group: 32}", 0.02), ("quantize: {bits: 4}", 0.02),
        ("quantize: {scheme: rtvq, bits: {base: 3, offset: 4}}", 0.02),
        ("quantize: {scheme: rtvq, bits: {base: 3, offset: 4}, group: row}", 0.02),
        ("quantize: {scheme: rtvq, bits: {base: 3, offset: 4}, group: 32, min_rank: 1}", 0.02),
        ("quantize: {budget: 5 bits}", 0.02),
        ("sparsify: {method: magnitude, density: 0.6}", 0.2),
        ("sparsify: {method: magnitude, density: 0.6, scope: model, values: {bits: 6, group: 32}}", 0.2),
        ("sparsify: {method: 'n:m', n: 5, m: 8, tail: prorate}", 0.2),
    ])
    func anotherTask(how: String, limit: Double) async throws {
        try await makeStore(how, ["tune-0", "tune-1"])
        let before = try outputFiles("\(bench.path)/store")
        let old = try StoreOnDisk("\(bench.path)/store")
        try await bench.run(StoreBench.recipe(how, ["tune-2"], extend: "store"), to: "larger")
        #expect(try await Tessera.run(["verify", "larger"], in: bench.path).exitCode == 0)
        let larger = try StoreOnDisk("\(bench.path)/larger"), after = try outputFiles("\(bench.path)/larger")
        #expect(larger.index.tasks.map(\.name) == Self.three)
        for file in old.files {
            #expect(before[file] != nil && after[file] == before[file], "\(file)")
        }
        #expect(old.files.isSubset(of: larger.files) && larger.files.count > old.files.count)
        for task in Self.three {
            let error = try await relativeError(task, from: "larger"), told = try larger.task(task)
            #expect(error < limit, "\(task)")
            #expect((error - told.error / told.energy).magnitude <= 1e-3 * error + 1e-9, "\(task): \(error), \(told)")
        }
        // And through a cluster.
        let cluster = try await Cluster(workers: 2)
        let outcome = try await Tessera.run(
            ["submit", "larger.yml", "submitted", "--wait", "--coordinator", cluster.jobs], in: bench.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles("\(bench.path)/submitted") == after)
    }

    /// Draws depend on the task, not on the other tasks nor their order.
    @Test func dareDoesNotDependOnTheOtherTasks() async throws {
        let how = "sparsify: {method: dare, density: 0.4}"
        try await makeStore(how)
        try await bench.run(StoreBench.recipe(how, Self.three.reversed()), to: "reversed")
        try await bench.run(StoreBench.recipe(how, ["tune-1"]), to: "one")
        try await bench.run(StoreBench.recipe(how, ["tune-2", "tune-0"], extend: "one"), to: "grown")
        let store = try StoreOnDisk("\(bench.path)/store")
        for task in Self.three {
            let parts = try store.parts(of: task)
            #expect(!parts.isEmpty)
            for other in ["reversed", "grown"] {
                #expect(try StoreOnDisk("\(bench.path)/\(other)").parts(of: task) == parts, "\(task), \(other)")
            }
        }
        // Tasks do not draw alike, and about the density stays.
        let masks = try Self.three.map { try store.parts(of: $0)["layers.0.weight.mask"]?.bytes ?? [] }
        #expect(Set(masks).count == 3)
        for mask in masks {
            let share = Double(mask.reduce(0) { $0 + $1.nonzeroBitCount }) / (48 * 33)
            #expect((share - 0.4).magnitude < 0.08)
        }
    }

    private static let rtvq = "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}"

    @Test func whatCannotBeExtended() async throws {
        let tvq = "quantize: {bits: 4, group: 32}"
        try await makeStore(tvq, ["tune-0", "tune-1"])
        try await expectRefusal(
            StoreBench.recipe(tvq, ["tune-1"], extend: "store"), 65, "refused.yml:4: the store already has a task 'tune-1'",
            "'name: TASK'")
        try await expectRefusal(
            StoreBench.recipe(Self.rtvq, ["tune-2"], extend: "store"), 65,
            "refused.yml:5: the store has no shared vector", "scheme: tvq")
        for method in ["tall", "emr", "cabs, n: 1, m: 4"] {
            try await expectRefusal(
                StoreBench.recipe("sparsify: {method: \(method)}", ["tune-2"], extend: "store"), 65, "refused.yml:5:",
                "looks at all tasks together", "make a new store")
        }
        try await expectRefusal(StoreBench.recipe(tvq, ["tune-2"], extend: "none"), 66, "none")
        try await expectRefusal(StoreBench.recipe(tvq, ["tune-2"], extend: "base"), 66, "holds no store of task vectors")
        // Vectors that are no offsets would be read with the shared vector added to them.
        try await bench.run(StoreBench.recipe(Self.rtvq, ["tune-0", "tune-1"]), to: "shared")
        for how in [tvq, "sparsify: {method: dare, density: 0.4}"] {
            try await expectRefusal(
                StoreBench.recipe(how, ["tune-2"], extend: "shared"), 65, "every task is an offset", "scheme: rtvq")
        }
        // Another base: of other values, and of other shapes.
        try write("other", tensors(tune: 1))
        try await expectRefusal(
            StoreBench.recipe(tvq, ["tune-2"], base: "other", extend: "store"), 65,
            "the base is not the base of the extended store",
            "tensor 'layers.0.weight'")
        var more = tensors(tune: nil)
        more["extra"] = TestTensor([1])
        try write("other", more)
        try await expectRefusal(
            StoreBench.recipe(tvq, ["tune-2"], base: "other", extend: "store"), 65, "refused.yml:2: the base is not the base")
        for method in ["tall", "emr"] {
            try await makeStore("sparsify: {method: \(method)}", ["tune-0", "tune-1"])
            try await expectRefusal(
                StoreBench.recipe(tvq, ["tune-2"], extend: "store"), 65, "a shared vector made from all of its tasks",
                "make a new store")
        }
    }
}
