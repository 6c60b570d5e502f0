import Foundation
import Synchronization
import TestSupport
import Testing

/// `--memory` is kept, whatever the size of the models.
@Suite(.serialized) struct MemoryTests {
    private static let budget = 64 << 20
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// A base and three fine-tunes of so many bytes together, and more names for these. One tensor is half of each.
    private func makeModels(bytes: Int) throws {
        let rows = 500, columns = bytes / 4 / 2 / rows / 2
        var random = SplitMix(seed: 3)
        for (index, name) in ["base", "a", "b", "c"].enumerated() {
            try FileManager.default.createDirectory(atPath: "\(directory.path)/\(name)", withIntermediateDirectories: true)
            try Data(#"{"model_type":"test"}"#.utf8).write(to: URL(fileURLWithPath: "\(directory.path)/\(name)/config.json"))
            let shapes = [("embed", [rows, columns]), ("head", [rows, columns / 2]), ("w", [rows, columns - columns / 2])]
            var entries: [String] = [], end = 0
            for (name, shape) in shapes {
                let start = end
                end += 2 * shape[0] * shape[1]
                entries.append("\"\(name)\":{\"dtype\":\"BF16\",\"shape\":\(shape),\"data_offsets\":[\(start),\(end)]}")
            }
            let header = Array("{\(entries.joined(separator: ","))}".utf8)
            let path = "\(directory.path)/\(name)/model.safetensors"
            _ = FileManager.default.createFile(atPath: path, contents: nil)
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            try file.write(contentsOf: withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) } + Data(header))
            // The same numbers over and over: of a length that no tile, row or block has.
            let piece = Data(
                TestTensor(bfloat16: (0..<999_983).map { _ in Float.random(in: -1...1, using: &random) * Float(index + 1) }).bytes
            )
            for start in stride(from: 0, to: end, by: piece.count) { try file.write(contentsOf: piece.prefix(end - start)) }
            try file.close()
        }
        for (index, name) in "defghijklmnopqrstuvwx".enumerated() {
            try FileManager.default.createSymbolicLink(
                atPath: "\(directory.path)/\(name)", withDestinationPath: ["a", "b", "c"][index % 3])
        }
    }

    /// Watches the most that a process holds, on a thread of its own, which other tests do not keep waiting.
    private final class Peak: Sendable {
        private let highest = Atomic(0)
        private let isOver = Atomic(false)

        init(of process: RunningTessera) {
            Thread.detachNewThread { [self] in
                while process.isRunning, !isOver.load(ordering: .relaxed) {
                    highest.max(process.anonymousMemory ?? 0, ordering: .relaxed)
                    usleep(1_000)
                }
            }
        }

        /// Bytes.
        func end() -> Int {
            isOver.store(true, ordering: .relaxed)
            return highest.load(ordering: .relaxed)
        }
    }

    private static func recipe(_ method: String, _ models: String) -> String {
        let entries = models.map { "{model: \($0), parameters: {weight: 0.4, density: 0.5}}" }
        return "merge_method: \(method)\nbase_model: base\nmodels: [\(entries.joined(separator: ", "))]\ndtype: bfloat16\n"
    }

    /// The flags of eight random drops would be more than the budget.
    @Test func runKeepsToIt() async throws {
        try makeModels(bytes: 10 * Self.budget)
        for (name, recipe) in [
            ("ties", Self.recipe("ties", "abc")), ("dare_ties", Self.recipe("dare_ties", "abcdefgh")),
            ("sparsify", "base_model: base\nmodels: [{model: a}, {model: b}]\nsparsify: {method: magnitude, density: 0.2}"),
        ] {
            let process = try RunningTessera(
                [
                    "run", try directory.write(recipe, to: "recipe.yml"), "\(directory.path)/out", "--memory", "\(Self.budget)",
                    "--threads", "2", "--overwrite",
                ], in: directory.path)
            let watch = Peak(of: process)
            try #require(await process.exitCode() == 0, "\(name): \(process.errors)")
            let peak = watch.end()
            #expect(peak < Self.budget, "\(name) took \(peak >> 20) MiB")
            // The pieces and tiles of two threads and the program itself, at least: else nothing was measured.
            #expect(peak > 8 << 20, "\(name) took \(peak >> 20) MiB")
        }
    }

    /// A worker that has no file and sees no output holds what it fetches and what it sends.
    @Test func aWorkerKeepsToIt() async throws {
        try makeModels(bytes: 3 * Self.budget)
        let empty = try TemporaryDirectory(), cluster = try await Cluster()
        let worker = try cluster.addWorker(["--blocks", "return", "--root", empty.path, "--memory", "\(Self.budget)"])
        try await cluster.waitForWorkers(1)
        let recipe = try directory.write(Self.recipe("ties", "abc"), to: "recipe.yml"), watch = Peak(of: worker)
        let outcome = try await cluster.submit(recipe, "\(directory.path)/out", ["--wait"], in: directory.path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        let peak = watch.end()
        #expect(peak < Self.budget, "took \(peak >> 20) MiB")
        #expect(peak > 16 << 20, "took \(peak >> 20) MiB")
    }

    /// A shard waits for a worker that it fits, and says which: one that is started so takes the shard.
    @Test func aJobWaitsForALargerWorker() async throws {
        try makeModels(bytes: 1 << 20)
        let cluster = try await Cluster(workers: 1, worker: ["--memory", "64MiB"])
        let recipe = try directory.write(Self.recipe("ties", "abcdefghijklmnopqrstuvwx"), to: "recipe.yml")
        let submit = try RunningTessera(
            ["submit", recipe, "\(directory.path)/out", "--wait", "--progress", "plain", "--coordinator", cluster.jobs],
            in: directory.path)
        try await eventually("a word about memory") { submit.errors.contains("waits for a worker with more memory") }
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        let advice = try #require(
            status.output.firstMatch(
                of: /is too large for worker-1, which has 67\.11 MB for one thread; start one with --memory (\d+MB) or more/),
            "\(status.output)")
        let plan = try await Tessera.run(["plan", recipe], in: directory.path)
        #expect(plan.output.contains("a worker with one thread needs at least --memory \(advice.1)\n"), "\(plan.output)")
        try cluster.addWorker(["--memory", String(advice.1)])
        #expect(await submit.exitCode() == 0, "\(submit.errors)")
    }

    @Test func aWorkerWithoutMemoryForItsBuffersDoesNotStart() async throws {
        let outcome = try await Tessera.run(["worker", "--coordinator", "127.0.0.1:1", "--memory", "64MiB", "--threads", "8"])
        #expect(
            outcome.exitCode == 64
                && outcome.errors.contains("start it with --memory 242MB or more, or with --threads 1 and --memory 68MB"),
            "\(outcome.errors)")
    }
}
