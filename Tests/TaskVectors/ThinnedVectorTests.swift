import Core
import Foundation
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// Vectors of which a hash keeps one of so many elements.
@Suite(.serialized) struct ThinnedVectorTests {
    private static let grids = [(2, 64, 8), (3, 64, 128), (4, 16, 2), (1, 32, 4), (8, 8192, 1), (5, 64, 1), (3, 1024, 8)].map {
        ThinnedGrid(bits: $0, group: $1, every: $2, key: 0x1234_5678_9abc_def0)
    }

    /// More than a tile; one that ends in the middle of a stratum, of a group and of a byte; and hardly any elements.
    private static let shapes = [[9, 1001], [7], [1], []]

    private static func vector(_ count: Int, seed: UInt64 = 5) -> [Float] {
        SomeVectors.make("normal", count: count, seed: seed)
    }

    private func encode(_ vector: [Float], _ grid: ThinnedGrid, shape: [Int], packLimit: Int? = nil) throws -> (
        VectorError, EncodingBench.Stored
    ) {
        let bench = EncodingBench(vectors: [vector], shape: shape)
        let found = try bench.run(.quantize(Quantizer(tasks: [.thinned(grid)], packLimit: packLimit)))
        return (try found.statistics.vectors[0], found.formats[0])
    }

    /// What is read of any stretch, from memory or a file, is what the words of docs/task-vectors.md make of the stored bytes.
    @Test(arguments: grids)
    func isReadAsItIsDescribed(grid: ThinnedGrid) throws {
        for shape in Self.shapes {
            let count = shape.reduce(1, *), vector = Self.vector(count)
            let (error, stored) = try encode(vector, grid, shape: shape), expected = stored.decoded()
            #expect(expected.count { $0 != 0 } <= (count + grid.every - 1) / grid.every)
            let squares = zip(vector, expected).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) }
            #expect((error.error - squares).magnitude <= 1e-9 * squares, "\(shape) \(grid)")
            try stored.expectReads(expected, "\(shape) \(grid)")
        }
    }

    /// A scale is rounded to eight bits, and that is all that the step along the vector errs by.
    @Test(arguments: grids)
    func stepsAlongTheVectorAsFarAsTheVector(grid: ThinnedGrid) throws {
        let vector = Self.vector(9009), read = try encode(vector, grid, shape: [9009]).1.decoded()
        let energy = vector.reduce(0.0) { $0 + Double($1) * Double($1) }
        let product = zip(vector, read).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        #expect((product / energy - 1).magnitude < 0.004, "\(grid): \(product / energy)")
    }

    /// What a budget is shared out by: eight tiles of a large tensor say it, and all of them where the few rows that changed are
    /// in others.
    @Test(arguments: [false, true])
    func aSampleSaysWhatTheCodesLose(isSparse: Bool) throws {
        let count = 20 * 8192
        let vector = isSparse ? (0..<count).map { $0 / 256 == 100 ? Float($0 % 97) - 48 : 0 } : Self.vector(count)
        let formats = [1, 3].map { StorageFormat.thinned(ThinnedGrid(bits: $0, group: 64, every: 1)) }
        let bench = EncodingBench(vectors: [vector], shape: [count / 256, 256])
        let measured = try bench.run(.measureGrids(GridMeasurement(shared: [.zero], formats: formats))).statistics
        guard case .grids(let found) = measured else { throw TesseraError(.internal, "nothing was measured") }
        for (error, format) in zip(found[0].errors[0], formats) {
            let stored = try bench.run(.quantize(Quantizer(tasks: [format]))).statistics.vectors[0]
            #expect((found[0].energy - stored.energy).magnitude <= 1e-9 * stored.energy)
            #expect((error - stored.error).magnitude <= 0.03 * stored.error, "\(error) in place of \(stored.error)")
        }
    }

    /// Noise is compared with what the base has where the vector is not zero, to a run of 64 elements: in a large tensor the
    /// sample says it.
    @Test(arguments: [3, 260])
    func whatDidNotChangeIsNotCounted(tiles: Int) throws {
        let count = tiles * 8192 - 100
        func values(_ seed: UInt64) -> [Float] { Self.vector(count, seed: seed).map { $0 + 1 } }
        // Every fourth row of 128 changed in one task, and half of every row in the other.
        let base = values(1), changes = [{ (place: Int) in place / 128 % 4 == 1 }, { place in place % 128 < 64 }]
        let tunes = changes.map { changed in base.enumerated().map { changed($0) ? $1 + 0.5 : $1 } }
        let format = StorageFormat.thinned(ThinnedGrid(bits: 2, group: 64, every: 1))
        let bench = EncodingBench(base: TestTensor(base), tunes: tunes.map { TestTensor($0) })
        let measured = try bench.run(.measureGrids(GridMeasurement(shared: [.zero], formats: [format]))).statistics
        guard case .grids(let found) = measured else { throw TesseraError(.internal, "nothing was measured") }
        for (found, changed) in zip(found, changes) {
            let places = (0..<count).filter(changed)
            let squares = places.reduce(0.0) { $0 + Double(base[$1]) * Double(base[$1]) }
            let elements = try #require(found.changed), energy = try #require(found.base)
            #expect(
                (elements / Double(places.count) - 1).magnitude < (tiles > 256 ? 0.002 : 1e-12), "\(elements) of \(places.count)")
            #expect((energy / squares - 1).magnitude < (tiles > 256 ? 0.02 : 1e-9))
        }
    }

    /// Each of a stratum's elements has the same chance, and another key or task another mask.
    @Test func everyElementHasItsTurn() throws {
        var turns = [Int](repeating: 0, count: 8), same = 0
        let ones = [Float](repeating: 1, count: 8192)
        let masks = try (0..<20).map { key in
            try encode(ones, ThinnedGrid(bits: 2, group: 64, every: 8, key: UInt64(key)), shape: [8192]).1.decoded()
        }
        for mask in masks { for (place, value) in mask.enumerated() where value != 0 { turns[place % 8] += 1 } }
        for turn in turns { #expect((turn - 2560).magnitude < 250, "\(turns)") }
        for (one, other) in zip(masks, masks.dropFirst()) { same += zip(one, other).count { $0 != 0 && $1 != 0 } }
        #expect((same - 19 * 128).magnitude < 400, "\(same) of \(19 * 1024) elements are kept by two keys that follow each other")
        let keys = try [("a", "x"), ("b", "x"), ("a", "y")].map { try ThinnedGrid.key(seed: 1, task: $0, tensor: $1) }
        #expect(Set(keys).count == 3)
    }

    /// Small vectors travel with the statistics, with the same bytes as in outputs of their own.
    @Test func smallVectorsArePacked() throws {
        let grid = ThinnedGrid(bits: 3, group: 64, every: 4, key: 9), vector = Self.vector(1000)
        let (_, stored) = try encode(vector, grid, shape: [1000])
        let bytes = (stored.parts[.codes] ?? []) + (stored.parts[.scales] ?? [])
        let encoding = Encoding.quantize(Quantizer(tasks: [.thinned(grid)], packLimit: bytes.count))
        #expect(encoding.outputs(shape: [1000]).map(\.count) == [0])
        let sources = try [[Float](repeating: 0, count: 1000), vector].map {
            let tensor = TestTensor($0)
            return try StoredTensor(Memory(bytes: tensor.bytes), offset: 0, dtype: .f32, count: 1000)
        }
        let statistics = try encoding.encode(
            TensorPasses(
                shape: [1000], sources: sources, inputs: TensorInputs(count: 2, base: 0), kernels: .best, runner: InOrder(),
                memory: MemoryBudget(bytes: 1 << 20), sinks: []))
        #expect(try statistics.vectors[0].packed.map(Array.init) == bytes)
        #expect(statistics.canBe(of: encoding, shape: [1000], sources: 2))
        // A worker that says less than the vector's bytes is not believed.
        let short = EncodingStatistics.vectors(
            base: try #require(statistics.base), [VectorError(error: 0, energy: 1, product: 1, packed: Data(bytes.dropLast()))])
        #expect(!short.canBe(of: encoding, shape: [1000], sources: 2))
        #expect(!short.canBe(of: .quantize(Quantizer(tasks: [.thinned(grid)])), shape: [1000], sources: 2))
    }
}
