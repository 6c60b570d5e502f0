import Core
import Foundation
import TestSupport
import Testing

/// docs/examples/read_task_vectors.py, which is all that docs/task-vectors.md says of the format, rebuilds what we rebuild.
@Suite struct StoreReaderTests {
    private static let recipes = [
        "quantize: {bits: 3}", "quantize: {bits: 2, group: row, min_rank: 0}", "quantize: {bits: 5, group: 16, rest: bfloat16}",
        "quantize: {bits: 1, group: 64}", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}", "quantize: {budget: 3 bits}",
        "quantize: {scheme: bitdelta}", "quantize: {scheme: axis_sign, min_rank: 0}",
        "quantize: {budget: 0.6 bits, exclude: a.bias}",
        "quantize: {budget: 0.7 bits, masks: common}", "quantize: {budget: 2.5 bits, thin: true}",
        "sparsify: {method: magnitude, density: 0.2}",
        "sparsify: {method: magnitude, density: 0.2, values: {bits: 4, group: 32}}",
        "sparsify: {method: magnitude, density: 0.2, values: {bits: 3, group: row}}",
        "sparsify: {method: cabs, n: 2, m: 8, values: {bits: 4}}", "sparsify: {method: tall}",
        "sparsify: {method: emr, values: {bits: 4, group: 32}}",
    ]

    private static let hasNumPy = (try? run("python3", ["-c", "import numpy"])) == 0

    private static let hasMypy = (try? run("python3", ["-c", "import mypy, numpy"])) == 0

    private static func run(_ command: String, _ arguments: [String]) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [command] + arguments
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus
    }

    /// Three matrices, of which one is thinned, and two vectors; a quarter of the base is a zero, half of those with a minus.
    private static func model(seed: UInt64) -> [(String, TestTensor)] {
        var common = SplitMix(seed: 7), own = SplitMix(seed: seed)
        return [("a.weight", [37, 24]), ("a.bias", [37]), ("b.weight", [9, 50]), ("b.norm", [50]), ("t.weight", [91, 70])].map {
            name, shape in
            let values = (0..<shape.reduce(1, *)).map { index -> Float in
                let value = Float.random(in: -1...1, using: &common), change = Float.random(in: -0.2...0.2, using: &own)
                let base = index % 4 == 0 ? (index % 8 == 0 ? -0.0 : 0) : value
                let tuned = seed == 0 || index % 3 == 0 ? base : base + change
                return Float(bitPattern: tuned.bitPattern & 0xffff_0000)
            }
            return (name, name.hasPrefix("a") ? TestTensor(bfloat16: values, shape: shape) : TestTensor(values, shape: shape))
        } + [("c.ids", TestTensor(.i64, [2], bytes: Array(0..<16)))]
            + [("d.weight", DType.f8E4M3), ("e.weight", .f8E5M2)].map { name, dtype in
                // Any numbers of the type below 2; a fine-tune has others in half of the places.
                let codes = (0..<12 * 40).map { index in
                    let code = UInt8.random(in: 0..<0x40, using: &common),
                        other = UInt8.random(
                            in: 0..<0x40, using: &own)
                    return (seed == 0 || index % 2 == 0 ? code : other) | (index % 3 == 0 ? 0x80 : 0)
                }
                return (name, TestTensor(dtype, [12, 40], bytes: codes))
            }
    }

    @Test(.enabled(if: hasNumPy, "there is no python3 with numpy"), arguments: recipes)
    func rebuildsTheSame(_ recipe: String) async throws {
        let directory = try TemporaryDirectory(), path = directory.path
        for (seed, name) in ["base", "one", "two"].enumerated() {
            try TestTensor.writeCheckpoint("\(path)/\(name)", Self.model(seed: UInt64(seed)))
        }
        try directory.write("\(recipe)\nbase_model: ./base\nmodels: [{model: ./one}, {model: ./two}]\n", to: "store.yml")
        try directory.write("merge_method: passthrough\nmodels: [{model: ./store#two}]\n", to: "two.yml")
        for job in [["store.yml", "store"], ["two.yml", "rebuilt"]] {
            let outcome = try await Tessera.run(["run"] + job, in: path)
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
        }
        let script = "\(Repository.root)/docs/examples/read_task_vectors.py"
        let code = try Self.run("python3", [script, "\(path)/store", "two", "\(path)/base", "\(path)/read.safetensors"])
        try #require(code == 0)
        let read = try TestTensor.read("\(path)/read.safetensors"), rebuilt = try TestTensor.read("\(path)/rebuilt")
        #expect(read == rebuilt)
    }

    /// As the module's first lines say.
    @Test(.enabled(if: hasNumPy, "there is no python3 with numpy"))
    func isAModule() async throws {
        let directory = try TemporaryDirectory(), path = directory.path
        for (seed, name) in ["base", "one", "two"].enumerated() {
            try TestTensor.writeCheckpoint("\(path)/\(name)", Self.model(seed: UInt64(seed)))
        }
        try directory.write(
            "quantize: {bits: 8}\nbase_model: ./base\nmodels: [{model: ./one}, {model: ./two}]\n", to: "store.yml")
        let outcome = try await Tessera.run(["run", "store.yml", "store"], in: path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        let program = """
            import sys
            sys.path.insert(0, "\(Repository.root)/docs/examples")
            import numpy, read_task_vectors as stores
            store, base = stores.Store("\(path)/store"), stores.read_checkpoint("\(path)/base")
            one = stores.read_checkpoint("\(path)/one")
            assert store.tasks == ["one", "two"] and store.tensors["a.weight"] == (37, 24)
            tau = one["b.weight"].numbers() - base["b.weight"].numbers()
            found = store.vector("one", "b.weight")
            # A step of 8 bits over a range of 0.4.
            assert found.dtype == numpy.float32 and 0 < abs(found - tau).max() < 0.4 / 255
            assert store.vector("one", "c.ids") is None
            try: store.vector("three", "b.weight")
            except KeyError as error: assert "it has one, two" in str(error)
            else: raise AssertionError("there is no third task")
            """
        #expect(try Self.run("python3", ["-c", program]) == 0)
    }

    @Test(.enabled(if: hasMypy, "there is no python3 with mypy and numpy"))
    func isTyped() throws {
        let cache = try TemporaryDirectory()
        let arguments = ["-m", "mypy", "--strict", "--cache-dir", cache.path]
        #expect(try Self.run("python3", arguments + ["\(Repository.root)/docs/examples/read_task_vectors.py"]) == 0)
    }
}
