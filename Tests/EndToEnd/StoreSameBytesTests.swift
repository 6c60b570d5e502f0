import Core
import Foundation
import TestSupport
import Testing

/// Stores of task vectors, and merges from them, have the same bytes however they were made.
@Suite(.serialized) struct StoreSameBytesTests {
    private let bench: StoreBench

    init() throws { bench = try StoreBench() }

    static let kinds: [(name: String, text: String)] = [
        ("tvq-tensor", "quantize: {scheme: tvq, bits: 3}"),
        ("tvq-row", "quantize: {scheme: tvq, bits: 3, group: row, min_rank: 0}"),
        ("tvq-group", "quantize: {scheme: tvq, bits: 2, group: 64, min_rank: 1, rest: bfloat16}"),
        ("rtvq", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}"),
        ("rtvq-row", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}, group: row, error_correction: false}"),
        ("budget", "quantize: {budget: 2.25 bits}"),
        ("budget-rtvq", "quantize: {scheme: rtvq, budget: 12%, sensitivity: relative, floor: 1}"),
        ("bitdelta", "quantize: {scheme: bitdelta}"), ("axis-sign", "quantize: {scheme: axis_sign}"),
        ("thinned", "quantize: {budget: 1.8 bits}"), ("common-masks", "quantize: {budget: 1.8 bits, masks: common}"),
        ("magnitude", "sparsify: {method: magnitude, density: 0.2}"),
        ("magnitude-model", "sparsify: {method: magnitude, density: 0.2, scope: model, exclude: [norm]}"),
        ("dare", "sparsify: {method: dare, density: 0.3}"),
        ("n-m", "sparsify: {method: 'n:m', n: 2, m: 8}"),
        ("cabs", "sparsify: {method: cabs, n: 4, m: 16, tail: prorate}"),
        ("tall", "sparsify: {method: tall, mask_lambda: [0.4, 0.2, 0.6]}"),
        ("emr", "sparsify: {method: emr}"),
        ("sparse-4-bits", "sparsify: {method: magnitude, density: 0.25, values: {bits: 4, group: 32}}"),
        ("sparse-rows", "sparsify: {method: dare, density: 0.25, values: {bits: 3, group: row}}"),
        ("tall-4-bits", "sparsify: {method: tall, values: {bits: 4, group: 64}}"),
    ]

    /// Those that work most differently.
    private static let some = ["tvq-row", "budget-rtvq", "magnitude-model", "cabs", "emr", "sparse-4-bits"]

    private struct Job {
        let name: String
        let recipe: String
        let reference: String
    }

    /// Small enough for several parts and many shards.
    private static let limits = ["--max-part-size", "100kB", "--shard-size", "15kB"]

    private func job(_ name: String, _ text: String) async throws -> Job {
        let recipe = try bench.directory.write(text, to: "\(name).yml"), reference = "\(bench.path)/\(name)"
        let outcome = try await Tessera.run(["run", recipe, reference, "--threads", "1"] + Self.limits)
        try #require(outcome.exitCode == 0, "\(name): \(outcome.errors)")
        return Job(name: name, recipe: recipe, reference: reference)
    }

    /// The recipes, each with what `tessera run` makes of it on one thread. A merge comes after the store that it reads.
    private func jobs(_ wanted: [String]? = nil, families: [String] = ["bf16", "f32"]) async throws -> [Job] {
        var jobs: [Job] = []
        for family in families {
            for kind in Self.kinds where (wanted ?? (family == "f32" ? Self.kinds.map(\.name) : Self.some)).contains(kind.name) {
                let models = (0..<3).map { "models/\(family)/tune-\($0)" }
                let store = try await job(
                    "\(family)-\(kind.name)", StoreBench.recipe(kind.text, models, base: "models/\(family)/base"))
                jobs.append(store)
                guard ["tvq-group", "rtvq", "cabs", "emr"].contains(kind.name) else { continue }
                let listed = (0..<3).map { "- model: \(store.reference)#tune-\($0)\n" }.joined()
                jobs.append(
                    try await job(
                        "\(store.name)-ties",
                        "merge_method: ties\nbase_model: models/\(family)/base\nmodels:\n\(listed)"
                            + "parameters: {weight: 0.4, density: 0.3}\n"))
            }
        }
        return jobs
    }

    private func expectSame(_ output: String, _ job: Job, _ how: String) throws {
        let found = try outputFiles(output), expected = try outputFiles(job.reference)
        #expect(found.keys.sorted() == expected.keys.sorted(), "\(job.name), \(how)")
        for (name, bytes) in expected { #expect(found[name] == bytes, "\(job.name)/\(name), \(how)") }
        try FileManager.default.removeItem(atPath: output)
    }

    @Test func forAnyNumberOfThreadsAndWorkersAndAnyShards() async throws {
        let jobs = try await jobs(), output = "\(bench.path)/again"
        for job in jobs {
            #expect(try await Tessera.run(["verify", job.reference]).exitCode == 0, "\(job.name)")
            for shards in job.name.hasPrefix("f32") ? ["4kB"] : ["2kB", "1GB"] {
                let arguments = ["--threads", "3", "--max-part-size", "100kB", "--shard-size", shards]
                let outcome = try await Tessera.run(["run", job.recipe, output] + arguments)
                #expect(outcome.exitCode == 0, "\(job.name): \(outcome.errors)")
                try expectSame(output, job, "shards of \(shards)")
            }
        }
        for workers in [1, 2, 5] {
            let cluster = try await Cluster(workers: workers)
            for job in jobs {
                let outcome = try await cluster.submit(job.recipe, output, ["--wait"] + Self.limits)
                #expect(outcome.exitCode == 0, "\(job.name): \(outcome.errors)")
                try expectSame(output, job, "\(workers) workers")
            }
        }
    }

    @Test func withFetchedInputs() async throws {
        let jobs = try await jobs(["tvq-group", "budget-rtvq", "magnitude-model", "cabs"], families: ["bf16"])
        let empty = try TemporaryDirectory(), output = "\(bench.path)/fetched"
        let cluster = try await Cluster(workers: 2, worker: ["--root", empty.path, "--pack", "always", "--blocks", "return"])
        for job in jobs {
            let outcome = try await cluster.submit(job.recipe, output, ["--wait"] + Self.limits)
            #expect(outcome.exitCode == 0, "\(job.name): \(outcome.errors)")
            try expectSame(output, job, "fetched")
        }
    }

    @Test func withAWorkerKilledInTheMiddle() async throws {
        for job in try await jobs(["tvq-group", "rtvq", "budget", "magnitude-model", "dare", "emr"], families: ["f32"]) {
            let cluster = try await Cluster(workers: 1, worker: Cluster.stuck)
            let output = "\(bench.path)/killed"
            let id = try await cluster.submitAndKillItsWorker(job.recipe, output, Self.limits)
            try await eventually("the end of \(job.name)") { try await cluster.job(id).state == "done" }
            try expectSame(output, job, "killed")
        }
    }

    // MARK: Tensors of several blocks

    /// Numbers that repeat with a period of a prime, in bytes.
    private static func pattern(_ period: Int, seed: UInt64, bytes: Int, _ word: (inout SplitMix) -> [UInt8]) -> [UInt8] {
        var random = SplitMix(seed: seed)
        let once = (0..<period).flatMap { _ in word(&random) }
        var all: [UInt8] = []
        all.reserveCapacity(bytes + once.count)
        while all.count < bytes { all += once }
        return Array(all.prefix(bytes))
    }

    private func write(_ name: String, _ type: String, period: Int, count: Int) throws {
        let seed = UInt64(period)
        let large =
            type == "f32"
            ? TestTensor(
                .f32, [count / 2500, 2500],
                bytes: Self.pattern(period, seed: seed, bytes: 4 * count) { random in
                    withUnsafeBytes(of: Float.random(in: -1...1, using: &random).bitPattern, Array.init)
                })
            : TestTensor(
                .bf16, [count / 2500, 2500],
                bytes: Self.pattern(period, seed: seed, bytes: 2 * count) { random in
                    Array(withUnsafeBytes(of: Float.random(in: -1...1, using: &random).bitPattern, Array.init)[2...])
                })
        try TestTensor.writeCheckpoint(
            "\(bench.path)/\(name)", [("large", large), ("small", TestTensor([1, 2, 3], shape: [1, 3]))])
    }

    /// Five million elements: more than two chunks, of which each is a block of every part.
    @Test(arguments: ["f32", "bf16"])
    func withSeveralBlocks(type: String) async throws {
        let count = 5_002_500
        for (name, period) in [("base", 7919), ("a", 6007), ("b", 5003)] {
            try write(name, type, period: period, count: count)
        }
        let kinds =
            type == "f32"
            ? [
                "sparsify: {method: magnitude, density: 0.3, scope: model, values: {bits: 4, group: 64}}"
            ]
            : [
                "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}, group: row}", "sparsify: {method: tall}",
            ]
        for kind in kinds {
            try await bench.run(StoreBench.recipe(kind, ["a", "b"]), to: "alone", ["--overwrite", "--threads", "1"])
            try await bench.run(
                StoreBench.recipe(kind, ["a", "b"]), to: "together", ["--overwrite", "--threads", "3", "--shard-size", "1MB"])
            #expect(
                try outputFiles("\(bench.path)/alone") == outputFiles("\(bench.path)/together"), "\(kind)")
            let cluster = try await Cluster(workers: 2)
            let outcome = try await Tessera.run(
                ["submit", "together.yml", "submitted", "--wait", "--coordinator", cluster.jobs, "--overwrite"], in: bench.path)
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
            #expect(try outputFiles("\(bench.path)/alone") == outputFiles("\(bench.path)/submitted"), "\(kind)")
            #expect(try await Tessera.run(["verify", "alone"], in: bench.path).exitCode == 0)
            // What the store says of its error is what a rebuilt fine-tune has.
            try await expectError(of: "b", in: "alone", kind)
        }
    }

    private func expectError(of task: String, in store: String, _ what: String) async throws {
        try await bench.run(StoreBench.rebuilding("\(store)#\(task)", more: "out_dtype: float32\n"), to: "whole", ["--overwrite"])
        let reported = try StoreOnDisk("\(bench.path)/\(store)").task(task)
        let tune = try #require(try TestTensor.read("\(bench.path)/\(task)")["large"])
        let rebuilt = try #require(try TestTensor.read("\(bench.path)/whole")["large"])
        let error = squaredError(tune, rebuilt)
        // Adding the base rounds once more.
        #expect((error - reported.error).magnitude <= 1e-3 * error, "\(what): \(error), reported \(reported.error)")
        #expect(reported.error < reported.energy, "\(what)")
    }

    /// In loops over raw bytes: there are millions.
    private func squaredError(_ tune: TestTensor, _ rebuilt: TestTensor) -> Double {
        tune.bytes.withUnsafeBytes { tune in
            rebuilt.bytes.withUnsafeBytes { rebuilt in
                let count = rebuilt.count / 4, isNarrow = tune.count == 2 * count
                var sum = 0.0
                for index in 0..<count {
                    let own =
                        isNarrow
                        ? Float(bitPattern: UInt32(tune.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16)
                        : tune.loadUnaligned(fromByteOffset: 4 * index, as: Float.self)
                    let difference = Double(own) - Double(rebuilt.loadUnaligned(fromByteOffset: 4 * index, as: Float.self))
                    sum += difference * difference
                }
                return sum
            }
        }
    }
}
