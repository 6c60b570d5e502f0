import Foundation
import TestSupport
import Testing

/// Which entries of a task vector stay, held against plain sorts over the whole model.
@Suite(.serialized) struct StoreSelectionTests {
    private let bench: StoreBench
    /// In byte order of their names, which is not that of a dictionary of words.
    private static let shapes = [
        ("A.weight", [300]), ("a.1.weight", [40, 33]), ("a.10.weight", [9001]), ("b", [5]), ("c", [10, 80]),
    ]
    private static let tasks = ["tune-0", "tune-1", "tune-2"]

    /// The base is zero, so that task vectors are the fine-tunes; many of their numbers are equal in magnitude.
    init() throws {
        bench = try StoreBench()
        try TestTensor.writeCheckpoint(
            "\(bench.path)/base",
            Self.shapes.map { ($0, TestTensor([Float](repeating: 0, count: $1.reduce(1, *)), shape: $1)) })
        for (seed, task) in Self.tasks.enumerated() {
            var random = SplitMix(seed: UInt64(seed))
            try TestTensor.writeCheckpoint(
                "\(bench.path)/\(task)",
                Self.shapes.map { name, shape in
                    let values = (0..<shape.reduce(1, *)).map { _ in Float(Int.random(in: -20...20, using: &random)) / 8 }
                    return (name, TestTensor(values, shape: shape))
                })
        }
    }

    private func vectors(_ task: String) throws -> [(name: String, values: [Double])] {
        let tensors = try TestTensor.read("\(bench.path)/\(task)")
        return Self.shapes.map { ($0.0, tensors[$0.0]?.values ?? []) }
    }

    private func marks(_ task: String, in store: StoreOnDisk) throws -> [String: [Bool]] {
        let parts = try store.parts(of: task)
        return Dictionary(
            uniqueKeysWithValues: Self.shapes.map { name, shape in
                let mask = parts["\(name).mask"]?.bytes ?? []
                return (name, (0..<shape.reduce(1, *)).map { !mask.isEmpty && mask[$0 / 8] >> ($0 % 8) & 1 == 1 })
            })
    }

    private func make(_ how: String) async throws -> StoreOnDisk {
        try await bench.run(StoreBench.recipe(how, Self.tasks), to: "store", ["--overwrite", "--shard-size", "5kB"])
        return try StoreOnDisk("\(bench.path)/store")
    }

    /// What is read are the marked entries, and zeros.
    private func expectRead(_ task: String, _ marks: [String: [Bool]]) async throws {
        let read = try await bench.rebuilt(task, from: "store")
        for (name, values) in try vectors(task) {
            #expect(read[name]?.values == zip(values, marks[name] ?? []).map { $1 ? $0 : 0 }, "\(task), \(name)")
        }
    }

    @Test(arguments: [0.001, 0.2, 0.5, 1])
    func theLargestOfTheModel(density: Double) async throws {
        let store = try await make("sparsify: {method: magnitude, density: \(density), scope: model}")
        for task in Self.tasks {
            let vectors = try vectors(task)
            // By magnitude, which is a small number of eighths, then by name, then by index.
            let order = vectors.flatMap(\.values).enumerated().map { Int(160 - 8 * $1.magnitude) << 32 | $0 }.sorted()
            let kept = order.prefix(Int(density * Double(order.count))).map { $0 & 0xffff_ffff }
            let marks = try marks(task, in: store)
            let chosen = Set(kept)
            var first = 0
            for (name, values) in vectors {
                #expect(
                    marks[name] == values.indices.map { chosen.contains(first + $0) && values[$0] != 0 }, "\(task), \(name)")
                first += values.count
            }
            // As many as that, zeros counted: of those nothing need be kept.
            let forms = try store.task(task).forms
            #expect(forms.reduce(0) { $0 + ($1?.kept ?? 0) } == kept.count)
            try await expectRead(task, marks)
        }
    }

    @Test func theLargestOfEachTensor() async throws {
        let store = try await make("sparsify: {method: magnitude, density: 0.3}")
        for task in Self.tasks {
            let marks = try marks(task, in: store)
            for (name, values) in try vectors(task) {
                let order = values.indices.sorted { (-values[$0].magnitude, $0) < (-values[$1].magnitude, $1) }
                let kept = Set(order.prefix(Int(0.3 * Double(values.count))))
                #expect(marks[name] == values.indices.map { kept.contains($0) && values[$0] != 0 }, "\(task), \(name)")
            }
            try await expectRead(task, marks)
        }
    }

    /// In each block the largest that are free, and only if there are too few of those, taken ones; zeros never.
    private func expectBlocks(_ how: String, n: Int, m: Int, prorates: Bool, isDisjoint: Bool) async throws {
        let store = try await make(how)
        var taken = Dictionary(
            uniqueKeysWithValues: Self.shapes.map { ($0.0, [Bool](repeating: false, count: $0.1.reduce(1, *))) })
        for task in Self.tasks {
            let marks = try marks(task, in: store)
            for (name, values) in try vectors(task) {
                var expected = values.map { _ in false }
                let own = taken[name] ?? []
                for start in stride(from: 0, to: values.count, by: m) {
                    let block = start..<min(values.count, start + m)
                    let count = block.count == m ? n : prorates ? (n * block.count + m - 1) / m : 0
                    let order = block.sorted {
                        (own[$0] ? 1 : 0, -values[$0].magnitude, $0) < (own[$1] ? 1 : 0, -values[$1].magnitude, $1)
                    }
                    for index in order.prefix(count) where values[index] != 0 { expected[index] = true }
                }
                #expect(marks[name] == expected, "\(how), \(task), \(name)")
                if isDisjoint { taken[name] = zip(own, expected).map { $0 || $1 } }
            }
            try await expectRead(task, marks)
        }
        if isDisjoint, !prorates, 3 * n <= m {
            let all = try Self.tasks.map { try self.marks($0, in: store) }
            for (name, shape) in Self.shapes {
                #expect((0..<shape.reduce(1, *)).allSatisfy { index in all.count { $0[name]?[index] == true } <= 1 }, "\(how)")
            }
        }
    }

    @Test func someOfEveryBlock() async throws {
        try await expectBlocks("sparsify: {method: 'n:m', n: 2, m: 4}", n: 2, m: 4, prorates: false, isDisjoint: false)
        try await expectBlocks(
            "sparsify: {method: 'n:m', n: 5, m: 64, tail: prorate}", n: 5, m: 64, prorates: true, isDisjoint: false)
    }

    @Test func tasksGetOutOfEachOthersWay() async throws {
        try await expectBlocks("sparsify: {method: cabs, n: 4, m: 16}", n: 4, m: 16, prorates: false, isDisjoint: true)
        try await expectBlocks(
            "sparsify: {method: cabs, n: 64, m: 256, tail: prorate}", n: 64, m: 256, prorates: true, isDisjoint: true)
        // Too few are free for the third task.
        try await expectBlocks(
            "sparsify: {method: cabs, n: 3, m: 8, tail: prorate}", n: 3, m: 8, prorates: true, isDisjoint: true)
    }
}
