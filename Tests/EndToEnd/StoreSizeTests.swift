import Core
import Foundation
import TestSupport
import Testing

/// What stores take on disk: what the arithmetic says, and hardly a byte more.
@Suite(.serialized) struct StoreSizeTests {
    private let bench: StoreBench

    init() throws { bench = try StoreBench() }

    /// About four million parameters in a few large matrices, and some that are not quantized.
    private static let shapes = [
        ("embed.weight", [1000, 1000]), ("layers.0.weight", [1500, 1000]), ("layers.1.weight", [1501, 1001]),
        ("layers.0.norm", [2000]), ("norm", [1001]),
    ]

    private func write(_ model: String, period: Int) throws {
        var random = SplitMix(seed: UInt64(period))
        let once = (0..<period).flatMap { _ in
            Array(withUnsafeBytes(of: Float.random(in: -1...1, using: &random).bitPattern, Array.init)[2...])
        }
        try TestTensor.writeCheckpoint(
            "\(bench.path)/\(model)",
            Self.shapes.map { name, shape in
                let count = 2 * shape.reduce(1, *)
                var bytes: [UInt8] = []
                while bytes.count < count { bytes += once.prefix(count - bytes.count) }
                return (name, TestTensor(.bf16, shape, bytes: bytes))
            })
    }

    private func directorySize(_ path: String) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: path).reduce(0) { total, name in
            let attributes = try FileManager.default.attributesOfItem(atPath: "\(path)/\(name)")
            return total + (attributes[.size] as? Int ?? 0)
        }
    }

    /// `T · Σ (⌈n·b/8⌉ + 12) + T · 4 · excluded` bytes.
    private static func accounting(tasks: Int, bits: Int) -> Int {
        shapes.reduce(0) { total, tensor in
            let count = tensor.1.reduce(1, *)
            return total + tasks * (tensor.1.count > 1 ? (count * bits + 7) / 8 + 12 : 4 * count)
        }
    }

    /// The fine-tunes are one: their number is what counts here.
    private static func recipe(_ how: String, tasks: Int) -> String {
        "\(how)\nbase_model: base\nmodels:\n" + (0..<tasks).map { "- {model: tune, name: t\($0)}\n" }.joined()
    }

    @Test func asTheArithmeticSays() async throws {
        try write("base", period: 7919)
        try write("tune", period: 6007)
        for (tasks, bits) in [(2, 2), (8, 3), (20, 2)] {
            try await bench.run(Self.recipe("quantize: {bits: \(bits)}", tasks: tasks), to: "store", ["--overwrite"])
            let size = try directorySize("\(bench.path)/store"), expected = Self.accounting(tasks: tasks, bits: bits)
            #expect(Double((size - expected).magnitude) <= 0.01 * Double(expected) + 4096, "\(tasks) tasks: \(size), \(expected)")
            #expect(try StoreOnDisk("\(bench.path)/store").tensorBytes() == expected, "\(tasks) tasks")
        }
    }

    // MARK: Budgets

    /// The digits' fine-tunes are real, if small.
    private static func digits(_ how: String) -> String {
        "\(how)\nbase_model: \(Repository.digits)/base\nmodels:\n"
            + ["rotated", "inverted", "noisy"].map { "- model: \(Repository.digits)/\($0)\n" }.joined()
    }

    private struct Size {
        let elements: Int
        let bytes: Int
    }

    private static func digitsSize() throws -> Size {
        let tensors = try TestTensor.read("\(Repository.digits)/base").values
        return Size(
            elements: tensors.reduce(0) { $0 + $1.shape.reduce(1, *) }, bytes: tensors.reduce(0) { $0 + $1.bytes.count })
    }

    @Test(arguments: [
        "budget: 1.2 bits, thin: false", "budget: 3 bits, sensitivity: absolute", "budget: 2.25 bits, floor: 2",
        "scheme: rtvq, budget: 12.5%",
    ])
    func budgetsAreKeptAndUsed(how: String) async throws {
        try await bench.run(Self.digits("quantize: {\(how)}"), to: "store")
        let size = try Self.digitsSize()
        let number = try #require(how.split(separator: " ").compactMap { Double($0.filter { "0123456789.".contains($0) }) }.first)
        let budget = how.contains("%") ? number / 100 * Double(3 * size.bytes) : number * Double(3 * size.elements) / 8
        let store = try StoreOnDisk("\(bench.path)/store"), written = try store.tensorBytes()
        #expect(written <= Int(budget), "\(how)")
        #expect(Double(written) >= 0.999 * budget, "\(how): \(Double(written) / budget)")
    }

    /// More bits err less, whatever is chosen.
    @Test func largerBudgetsErrLess() async throws {
        var last = Double.infinity
        for bits in [1.0, 2, 4] {
            try await bench.run(
                Self.digits("quantize: {budget: \(bits) bits, sensitivity: absolute, thin: false}"), to: "store", ["--overwrite"])
            let store = try StoreOnDisk("\(bench.path)/store")
            let error = store.index.tasks.reduce(0) { $0 + $1.error }
            #expect(error < last, "\(bits) bits")
            last = error
        }
    }

    @Test func aBudgetBelowTheLeastIsRefused() async throws {
        for (how, exists) in [("budget: 0.5 bits\n  floor: 1", true), ("budget: 0.01 bits\n  sensitivity: relative", true)] {
            try bench.directory.write(Self.digits("quantize:\n  \(how)"), to: "small.yml")
            let outcome = try await Tessera.run(["run", "small.yml", "small"], in: bench.path)
            #expect((outcome.exitCode == 65) == exists, "\(outcome.errors)")
            #expect(outcome.errors.contains("small.yml:2: the budget of"), "\(outcome.errors)")
            #expect(outcome.errors.contains("raise the budget or lower the floor"), "\(outcome.errors)")
            #expect(bench.directory.names == ["small.yml"])
        }
    }

    /// A tensor with all of the weight gets more bits than one with none.
    @Test func weightsFromAFile() async throws {
        let names = try TestTensor.read("\(Repository.digits)/base").filter { $0.value.shape.count == 2 }
            .sorted { $0.value.bytes.count > $1.value.bytes.count }.prefix(2).map(\.key)
        try #require(names.count == 2)
        var bits: [[Double]] = []
        for (first, second) in [(100_000, 0.00001), (0.00001, 100_000)] {
            try bench.directory.write("'\(names[0])': \(first)\n\(names[1]): \(second)\n", to: "weights.yml")
            try await bench.run(
                Self.digits("quantize: {budget: 3 bits, sensitivity: weights.yml}"), to: "store", ["--overwrite"])
            let parts = try StoreOnDisk("\(bench.path)/store").parts(of: "noisy")
            bits.append(
                names.map { name in
                    Double(parts.filter { $0.key.hasPrefix("\(name).") }.reduce(0) { $0 + $1.value.bytes.count })
                })
        }
        #expect(bits[0][0] > bits[1][0] && bits[0][1] < bits[1][1], "\(bits)")
    }
}
