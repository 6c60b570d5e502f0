import Core
import Foundation
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// Task vectors in every format that a store may hold: what is read, from anywhere and however the file is read, is what the
/// words of `docs/task-vectors.md` make of the stored bytes, and errs by what was reported.
@Suite(.serialized) struct StoreFormatTests {
    private static let granularities: [Grid.Granularity] = [.tensor, .row, .group(16), .group(128), .group(8192)]
    private static let grids = granularities.flatMap { granularity in
        (granularity == .group(16) || granularity == .group(8192) ? [1, 3, 8] : Array(1...8)).map {
            Grid(bits: $0, granularity: granularity)
        }
    }
    private static let dense = [DType.f32, .bf16, .f16].map { ValueFormat.raw($0) } + grids.map { .grid($0) }
    private static let sparse: [ValueFormat] =
        [.raw(.f32), .raw(.bf16), .raw(.f16)]
        + [(4, .tensor), (3, .row), (1, .group(16)), (4, .group(128)), (5, .group(128)), (8, .group(8192))].map {
            .grid(Grid(bits: $0, granularity: $1))
        }

    /// More than a tile, with rows that do not fit tiles and bytes; and hardly any elements.
    private static let shapes = [[9, 1001], [7], [3, 1], [1], []]

    private func squares(_ x: [Float], _ y: [Float]) -> Double {
        var sum = 0.0
        for (x, y) in zip(x, y) {
            let difference = Double(x) - Double(y)
            sum += difference * difference
        }
        return sum
    }

    private func expectReport(_ found: VectorError, _ vector: [Float], _ read: [Float], _ what: String) {
        let energy = squares(vector, vector.map { _ in 0 }), error = squares(vector, read)
        #expect((found.error - error).magnitude <= 1e-9 * error, "\(what): \(found.error) in place of \(error)")
        #expect((found.energy - energy).magnitude <= 1e-9 * energy, "\(what): \(found.energy) in place of \(energy)")
    }

    @Test(arguments: dense)
    func denseVectors(values: ValueFormat) throws {
        for shape in Self.shapes {
            let count = shape.reduce(1, *)
            let vectors = SomeVectors.kinds.enumerated().map { SomeVectors.make($1, count: count, seed: UInt64($0)) }
            let bench = EncodingBench(vectors: vectors, shape: shape)
            let (statistics, formats) = try bench.run(.quantize(Quantizer(tasks: vectors.map { _ in .dense(values) })))
            for (index, kind) in SomeVectors.kinds.enumerated() {
                let what = "\(kind) \(shape) \(values)", read = formats[index].decoded()
                try formats[index].expectReads(read, what)
                expectReport(try statistics.vectors[index], vectors[index], read, what)
                expectNear(formats[index], vectors[index], read, values, what)
            }
        }
    }

    @Test(arguments: [SignScaling.tensor, .row, .column])
    func signs(scaling: SignScaling) throws {
        for shape in Self.shapes {
            let count = shape.reduce(1, *)
            let vectors = SomeVectors.kinds.enumerated().map { SomeVectors.make($1, count: count, seed: UInt64($0)) }
            let bench = EncodingBench(vectors: vectors, shape: shape)
            let (statistics, formats) = try bench.run(.quantize(Quantizer(tasks: vectors.map { _ in .signs(scaling) })))
            for (index, kind) in SomeVectors.kinds.enumerated() {
                let what = "\(kind) \(shape) \(scaling)", read = formats[index].decoded()
                try formats[index].expectReads(read, what)
                expectReport(try statistics.vectors[index], vectors[index], read, what)
            }
        }
    }

    /// No element is further away than half a scale; what is stored as it is in float32 is exact.
    private func expectNear(
        _ stored: EncodingBench.Stored, _ vector: [Float], _ read: [Float], _ values: ValueFormat, _ what: String
    ) {
        switch values {
        case .raw(.f32): #expect(read == vector, "\(what)")
        case .raw: #expect(zip(vector, read).allSatisfy { ($0 - $1).magnitude <= $0.magnitude / 256 + 0x1p-24 }, "\(what)")
        case .grid(let grid):
            guard grid.granularity == .tensor || grid.granularity == .row else { return }
            let length = grid.granularity == .tensor ? max(1, vector.count) : stored.shape.last ?? 1
            for start in stride(from: 0, to: vector.count, by: length) {
                let own = vector[start..<start + length]
                let low = min(own.min() ?? 0, grid.granularity == .row ? 0 : .infinity)
                let high = max(own.max() ?? 0, grid.granularity == .row ? 0 : -.infinity)
                // Scales in bfloat16 are rounded up.
                let scale = Double(high - low) / Double((1 << grid.bits) - 1) * (grid.granularity == .row ? 1.008 : 1)
                let far = zip(own, read[start..<start + length]).filter { (x: Float, y: Float) -> Bool in
                    let distance = (Double(x) - Double(y)).magnitude
                    return !(distance <= scale * 0.50001 + 2e-7 * Double(x.magnitude))
                }
                #expect(far.isEmpty, "\(what), \(start), a scale of \(scale)")
            }
        }
    }

    @Test(arguments: sparse)
    func sparseVectors(values: ValueFormat) throws {
        for shape in Self.shapes {
            let count = shape.reduce(1, *), kept = [0, (count + 3) / 4, count]
            for (seed, kind) in SomeVectors.kinds.enumerated() {
                let vector = SomeVectors.make(kind, count: count, seed: UInt64(seed)), vectors = kept.map { _ in vector }
                let order = vector.indices.sorted {
                    (-vector[$0].magnitude, $0) < (-vector[$1].magnitude, $1)
                }
                let bench = EncodingBench(vectors: vectors, shape: shape)
                let (statistics, formats) = try bench.run(
                    .sparsify(SparseEncoder(selection: .largest(kept), values: values, kept: kept)))
                for (index, kept) in kept.enumerated() {
                    let what = "\(kind) \(shape) \(values) \(kept)", read = formats[index].decoded()
                    try formats[index].expectReads(read, what)
                    expectReport(try statistics.vectors[index], vector, read, what)
                    // The largest ones, of equal ones the first.
                    let chosen = Set(order.prefix(kept).filter { vector[$0] != 0 })
                    #expect(vector.indices.allSatisfy { formats[index].isMarked($0) == chosen.contains($0) }, "\(what)")
                    if case .raw(.f32) = values {
                        #expect(read == vector.indices.map { chosen.contains($0) ? vector[$0] : 0 }, "\(what)")
                    }
                }
            }
        }
    }

    /// Differences of bfloat16 models, in chunks: blocks of a store's tensors hold the bytes of 2²¹ elements each.
    @Test func manyBlocks() throws {
        let count = 5 << 20 / 2 + 4321
        var random = SplitMix(seed: 3)
        // Random bytes of numbers between 1 and 4 in magnitude, and the same with the last bits changed.
        let words = (0..<count).map { _ in UInt16(truncatingIfNeeded: random.next()) & 0x80ff | 0x3f80 }
        let base = TestTensor(.bf16, [count], bytes: words.flatMap { [UInt8($0 & 0xff), UInt8($0 >> 8)] })
        let tune = TestTensor(.bf16, [count], bytes: words.flatMap { [UInt8($0 & 0xff) ^ UInt8($0 % 3), UInt8($0 >> 8)] })
        let vector = words.map { word in
            Float(bitPattern: UInt32(word ^ word % 3) << 16) - Float(bitPattern: UInt32(word) << 16)
        }
        let bench = EncodingBench(base: base, tunes: [tune])
        let formats: [Encoding] = [
            .quantize(Quantizer(tasks: [.dense(.grid(Grid(bits: 3, granularity: .group(128))))])),
            .quantize(Quantizer(tasks: [.thinned(ThinnedGrid(bits: 3, group: 64, every: 8, key: 5))])),
            .sparsify(
                SparseEncoder(
                    selection: .blocks(n: 1, m: 2, tail: .drop, isDisjoint: false),
                    values: .grid(Grid(bits: 5, granularity: .group(64))),
                    kept: [count / 2])),
        ]
        for encoding in formats {
            let (statistics, formats) = try bench.run(encoding)
            let vectors = try [true, false].map { try formats[0].open(in: TemporaryDirectory(), mapped: $0) }
            var error = 0.0
            var found = [Float](repeating: .nan, count: 8192), other = found
            let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192 * 8, alignment: 64)
            defer { scratch.deallocate() }
            for start in stride(from: 0, to: count, by: 8192) {
                let range = start..<min(count, start + 8192)
                try vectors[0].load(range, into: &found, scratch: scratch, kernels: .best)
                try vectors[1].load(range, into: &other, scratch: scratch, kernels: .best)
                #expect(found == other)
                error += Kernels.best.squaredError(Array(vector[range]), found, count: range.count)
            }
            let reported = try statistics.vectors[0]
            #expect((reported.error - error).magnitude <= 1e-9 * error)
            // What one of eight elements makes up for is mostly noise.
            #expect(reported.error < reported.energy * (formats[0].format.isThinned ? 10 : 0.5))
        }
    }

    // MARK: Several vectors

    @Test(arguments: [true, false])
    func offsetsFromASharedVector(corrects: Bool) throws {
        let shape = [17, 601], count = 17 * 601
        let common = SomeVectors.make("normal", count: count, seed: 9)
        let vectors = (0..<3).map { task in
            zip(common, SomeVectors.make("normal", count: count, seed: UInt64(task))).map { $0 + 0.3 * $1 }
        }
        for granularity in [Grid.Granularity.tensor, .row, .group(64)] {
            let base = Grid(bits: 3, granularity: granularity), offset = Grid(bits: 2, granularity: granularity)
            let bench = EncodingBench(vectors: vectors, shape: shape)
            let (statistics, formats) = try bench.run(
                .quantize(
                    Quantizer(
                        shared: .dense(.grid(base)), correctsErrors: corrects, tasks: vectors.map { _ in .dense(.grid(offset)) }))
            )
            let shared = formats[0].decoded()
            for (task, vector) in vectors.enumerated() {
                let own = formats[task + 1].decoded(), what = "\(granularity), \(task)"
                let read = try rebuilt(formats[0], formats[task + 1], base: bench.base)
                #expect(read == zip(shared, own).map { $0 + $1 }, "\(what)")
                let error = squares(vector, read)
                let found = try statistics.vectors[task]
                #expect((found.error - error).magnitude <= 1e-4 * error, "\(what)")
                // What is left is the offset's own error, which is small against the vector; not so without correction.
                #expect(found.error < found.energy * 0.5, "\(what)")
            }
        }
    }

    /// The whole tensor through `RebuiltTensor`, by both ways that it can be read.
    private func rebuilt(
        _ first: EncodingBench.Stored, _ second: EncodingBench.Stored, base: TestTensor, factor: Double = 1
    ) throws -> [Float] {
        let directory = try TemporaryDirectory()
        let count = base.shape.reduce(1, *)
        let tensor = RebuiltTensor(
            try StoredTensor(Memory(bytes: base.bytes), offset: 0, dtype: base.dtype, count: count),
            vectors: [try first.open(in: directory, mapped: true), try second.open(in: directory, mapped: false)],
            factor: factor)
        var bytes = [UInt8](repeating: 0xee, count: base.bytes.count)
        for start in stride(from: 0, to: bytes.count, by: 4 * 3001) {
            let range = start..<min(bytes.count, start + 4 * 3001)
            try bytes.withUnsafeMutableBytes { bytes in
                guard let target = bytes.baseAddress else { return }
                try tensor.copyBytes(range, to: target + range.lowerBound)
            }
        }
        return TestTensor(base.dtype, base.shape, bytes: bytes).values.map { Float($0) }
    }

    /// A few bytes of a rebuilt tensor need no less buffer than many.
    @Test(arguments: granularities)
    func fewBytesOfARebuiltTensor(granularity: Grid.Granularity) throws {
        for count in [1, 2, 3, 9, 20] {
            let vector = SomeVectors.make("normal", count: count, seed: 1), grid = Grid(bits: 3, granularity: granularity)
            let bench = EncodingBench(vectors: [vector, vector], shape: [count])
            let (_, formats) = try bench.run(
                .quantize(Quantizer(shared: .dense(.grid(grid)), tasks: [.dense(.grid(grid)), .dense(.grid(grid))])))
            let expected = zip(formats[0].decoded(), formats[1].decoded()).map { $0 + $1 }
            #expect(try rebuilt(formats[0], formats[1], base: bench.base) == expected, "\(count)")
        }
    }

    @Test func masksOverASharedVector() throws {
        let shape = [17, 601], count = 17 * 601
        let vectors = (0..<3).map { SomeVectors.make($0 == 1 ? "sparse" : "normal", count: count, seed: UInt64($0)) }
        let bench = EncodingBench(vectors: vectors, shape: shape)
        let values: [ValueFormat] = [.raw(.f32), .raw(.bf16), .grid(Grid(bits: 4, granularity: .group(128)))]
        for rule in [TaskMasks.Rule.tall([0.4, 0, 1.5]), .emr] {
            for values in values {
                let (statistics, formats) = try bench.run(.mask(TaskMasks(rule: rule, shared: values, taskCount: 3)))
                let shared = formats[0].decoded(), what = "\(rule), \(values)"
                for (task, vector) in vectors.enumerated() {
                    let own = zip(shared, 0..<count).map { formats[task + 1].isMarked($1) ? $0 : 0 }
                    let factor: Float = task == 1 ? 0.75 : 1
                    let read = try rebuilt(formats[0], formats[task + 1], base: bench.base, factor: Double(factor))
                    #expect(read == own.map { $0 * factor }, "\(what), \(task)")
                    let masked = try statistics.masks[task]
                    let numbers = [
                        masked.error, masked.energy, masked.product, masked.masked, masked.magnitudes,
                        masked.maskedMagnitudes,
                    ]
                    let product: Double = zip(vector, own).reduce(0) { $0 + Double($1.0) * Double($1.1) }
                    let expected: [Double] = [
                        squares(vector, own), squares(vector, vector.map { _ in 0 }), product, squares(own, own.map { _ in 0 }),
                        vector.reduce(0) { $0 + Double($1.magnitude) }, own.reduce(0) { $0 + Double($1.magnitude) },
                    ]
                    for (found, expected) in zip(numbers, expected) {
                        #expect((found - expected).magnitude <= 1e-9 * expected.magnitude, "\(what), \(task)")
                    }
                    let sums: [Float] = vectors[0].indices.map { (vectors[0][$0] + vectors[1][$0]) + vectors[2][$0] }
                    let marks = vectors[0].indices.map { index -> Bool in
                        switch rule {
                        case .tall(let lambdas):
                            let others: Float = (sums[index] - vector[index]).magnitude
                            return vector[index].magnitude > Float(lambdas[task]) * others
                        case .emr: return sums[index] > 0 ? vector[index] > 0 : vector[index] < 0
                        }
                    }
                    #expect(marks.indices.allSatisfy { marks[$0] == formats[task + 1].isMarked($0) }, "\(what), \(task)")
                }
            }
        }
    }

    /// No result depends on the number of threads, the order of work or the instruction set.
    @Test func sameBytes() throws {
        let shape = [17, 1601], count = 17 * 1601
        let vectors = (0..<2).map { SomeVectors.make("normal", count: count, seed: UInt64($0)) }
        let grid = { (granularity: Grid.Granularity) in StorageFormat.dense(.grid(Grid(bits: 3, granularity: granularity))) }
        let encodings: [Encoding] =
            [Grid.Granularity.tensor, .row, .group(128)].map {
                .quantize(Quantizer(shared: grid($0), tasks: [grid($0), grid(.group(64))]))
            } + [
                .sparsify(
                    SparseEncoder(
                        selection: .largest([900, 5000]), values: .grid(Grid(bits: 4, granularity: .row)), kept: [900, 5000])),
                .sparsify(
                    SparseEncoder(
                        selection: .random(density: 0.3, keys: [1, 2]), values: .raw(.bf16), kept: [count, count])),
                .sparsify(
                    SparseEncoder(
                        selection: .blocks(n: 3, m: 8, tail: .prorate, isDisjoint: true), values: .raw(.f32),
                        kept: [Int](repeating: EntryBlocks(kept: 3, size: 8, tail: .prorate).kept(of: count), count: 2))),
                .mask(TaskMasks(rule: .emr, shared: .grid(Grid(bits: 4, granularity: .tensor)), taskCount: 2)),
                .measureGrids(
                    GridMeasurement(shared: [.zero, grid(.group(128))], formats: [grid(.group(64)), .dense(.raw(.bf16))])),
            ]
        for encoding in encodings {
            var bench = EncodingBench(vectors: vectors, shape: shape)
            bench.kernels = .portable
            let (expected, formats) = try bench.run(encoding)
            for kernels in Kernels.available {
                for (runner, memory) in [(InOrder(), 0), (Backwards(), 1 << 20), (AtOnce(), 1 << 30)]
                    as [(any ParallelRunner, Int)]
                {
                    (bench.kernels, bench.runner, bench.memory) = (kernels, runner, memory)
                    let (found, again) = try bench.run(encoding)
                    #expect(found == expected, "\(kernels), \(runner)")
                    #expect(again.map(\.parts) == formats.map(\.parts), "\(kernels), \(runner)")
                }
            }
        }
    }

    @Test func numbersThatAreNotFiniteAreRefused() throws {
        let grids = [Grid.Granularity.tensor, .row, .group(64)].map { StorageFormat.dense(.grid(Grid(bits: 3, granularity: $0))) }
        let encodings: [Encoding] =
            (grids + [.dense(.raw(.f32))]).map { .quantize(Quantizer(tasks: [$0])) }
            + [
                .quantize(Quantizer(shared: grids[0], tasks: [grids[0]])),
                .sparsify(SparseEncoder(selection: .largest([5]), values: .raw(.f32), kept: [5])),
                .sparsify(
                    SparseEncoder(selection: .random(density: 0.5, keys: [1]), values: .raw(.f32), kept: [9000])),
                .sparsify(
                    SparseEncoder(
                        selection: .blocks(n: 1, m: 4, tail: .drop, isDisjoint: true), values: .raw(.f32), kept: [2250])),
                .mask(TaskMasks(rule: .emr, shared: .raw(.f32), taskCount: 1)),
                .measureGrids(GridMeasurement(shared: [.zero], formats: [grids[2]])),
            ]
        for bad in [Float.nan, .infinity, -.infinity] {
            var vector = SomeVectors.make("normal", count: 9000, seed: 1)
            vector[8500] = bad
            for encoding in encodings {
                let error = #expect(throws: TesseraError.self, "\(bad), \(encoding)") {
                    try EncodingBench(vectors: [vector], shape: [9000]).run(encoding)
                }
                #expect(error?.code == .badData && error?.problem.contains("not finite") == true, "\(bad), \(encoding)")
            }
        }
    }
}
