import Core
import Foundation
import Operators
import Synchronization
import TensorKernels
import TestSupport
import Testing

@Suite struct AlignedRowsTests {
    private typealias Row = RowMap.SourceRow

    // MARK: Row maps

    @Test func neighboursBecomeRuns() {
        var map = RowMap()
        for row in 0..<5 { map.append(.stored(Row(source: 0, row: row))) }
        map.append(.stored(Row(source: 1, row: 5)))
        for row in 0..<2 { map.append(.mean([Row(source: 0, row: 7 + row), Row(source: 2, row: 1 + row)])) }
        map.append(.zero)
        map.append(.zero)
        map.append(.padding, count: 3)
        map.append(.padding, count: 0)
        #expect(map.runs.map(\.rows) == [0..<5, 5..<6, 6..<8, 8..<10, 10..<13])
        #expect(map.rowCount == 13)
        #expect(map.origin(ofRow: 3) == .stored(Row(source: 0, row: 3)))
        #expect(map.origin(ofRow: 7) == .mean([Row(source: 0, row: 8), Row(source: 2, row: 2)]))
        #expect(map.origin(ofRow: 9) == .zero && map.origin(ofRow: 12) == .padding)
    }

    private func coded(_ map: RowMap) throws -> [UInt8] { Array(try JSONEncoder().encode([map])) }

    private func decoded(_ bytes: [UInt8]) throws -> RowMap? { try JSONDecoder().decode([RowMap].self, from: Data(bytes)).first }

    @Test func codingIsCompactAndExact() throws {
        var identity = RowMap()
        identity.append(.stored(Row(source: 2, row: 0)), count: 150_000)
        #expect(try coded(identity).count < 30)
        #expect(try decoded(coded(identity)) == identity)

        var random = SplitMix(seed: 1)
        var permutation = RowMap()
        for row in (0..<150_000).shuffled(using: &random) { permutation.append(.stored(Row(source: 1, row: row))) }
        let bytes = try coded(permutation)
        #expect(bytes.count < 1_000_000)
        #expect(try decoded(bytes) == permutation)

        for seed in 0..<50 {
            var random = SplitMix(seed: UInt64(seed))
            var map = RowMap()
            for _ in 0..<Int.random(in: 0..<40, using: &random) {
                let rows = (0..<3).map { Row(source: $0, row: Int.random(in: 0..<300_000, using: &random)) }
                let origins: [RowMap.Origin] = [.stored(rows[1]), .mean(Array(rows[..<2])), .mean(rows), .zero, .padding]
                map.append(
                    origins.randomElement(using: &random) ?? .zero,
                    count: Int.random(in: 1...3, using: &random) == 1 ? Int.random(in: 1...200_000, using: &random) : 1)
            }
            #expect(try decoded(coded(map)) == map)
        }
    }

    @Test(arguments: ["?", "A", "AA=", "BAD/", "AQ", "BAE", "/////////////////", "BgAA", "AP8B", "gP////8fAAE", "AgA"])
    func whatIsNoMapIsRefused(text: String) {
        #expect(throws: DecodingError.self) { try JSONDecoder().decode([RowMap].self, from: Data("[\"\(text)\"]".utf8)) }
    }

    @Test func anyTextIsReadOrRefused() {
        var random = SplitMix(seed: 3)
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        for _ in 0..<2_000 {
            let text = String(
                (0..<Int.random(in: 0..<24, using: &random)).compactMap { _ in alphabet.randomElement(using: &random) })
            if let map = try? decoded(Array("[\"\(text)\"]".utf8)) {
                #expect(map.runs.allSatisfy { !$0.rows.isEmpty })
                #expect((try? decoded(coded(map))) == map)
            }
        }
    }

    // MARK: Aligned matrices

    /// Row r, column c of model m is 1000 m + 10 r + c.
    private func matrix(_ model: Int, rows: Int, columns: Int, half: Bool = false) throws -> any ElementSource {
        let values = (0..<rows * columns).map { Float(1000 * model + 10 * ($0 / columns) + $0 % columns) }
        let tensor = half ? TestTensor(bfloat16: values) : TestTensor(values)
        return try StoredTensor(Memory(bytes: tensor.bytes), offset: 0, dtype: tensor.dtype, count: values.count)
    }

    private static let map: RowMap = {
        var map = RowMap()
        map.append(.stored(Row(source: 0, row: 2)), count: 3)
        map.append(.stored(Row(source: 1, row: 1)))
        map.append(.mean([Row(source: 0, row: 0), Row(source: 1, row: 3)]), count: 2)
        map.append(.zero)
        map.append(.padding, count: 2)
        return map
    }()

    private func load(_ rows: AlignedRows, _ range: Range<Int>) throws -> [Float] {
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, range.count) * 8, alignment: 64)
        defer { scratch.deallocate() }
        return try [Float](unsafeUninitializedCapacity: range.count) { buffer, count in
            if let start = buffer.baseAddress { try rows.load(range, into: start, scratch: scratch, kernels: .best) }
            count = range.count
        }
    }

    private func expected(columns: Int) -> [Float] {
        let real: [[Float]] = (0..<7).map { row in
            (0..<columns).map { column in
                let c = Float(column)
                return switch row {
                case 0...2: Float(10 * (row + 2)) + c
                case 3: 1010 + c
                case 4...5: (Float(10 * (row - 4)) + c + 1000 + Float(10 * (row - 1)) + c) / 2
                default: 0
                }
            }
        }
        let padding = (0..<columns).map { column in Float(real.reduce(0.0) { $0 + Double($1[column]) } / 7) }
        return (real + [padding, padding]).flatMap { $0 }
    }

    @Test(arguments: [1, 3, 700])
    func everyRangeIsTheSame(columns: Int) throws {
        let rows = try AlignedRows(
            matrices: [matrix(0, rows: 6, columns: columns), matrix(1, rows: 5, columns: columns)], rowLength: columns,
            map: Self.map)
        let wanted = expected(columns: columns)
        #expect(rows.count == wanted.count && rows.dtype == .f32)
        #expect(try load(rows, 0..<rows.count) == wanted)
        var random = SplitMix(seed: 9)
        for _ in 0..<100 {
            let start = Int.random(in: 0...rows.count, using: &random), end = Int.random(in: start...rows.count, using: &random)
            #expect(try load(rows, start..<end) == Array(wanted[start..<end]))
        }
        var bytes = [UInt8](repeating: 0, count: 4 * (rows.count - 2))
        try bytes.withUnsafeMutableBytes { target in
            guard let start = target.baseAddress else { return }
            try rows.copyBytes(4..<4 * (rows.count - 1), to: start)
            #expect(throws: TesseraError.self) { try rows.copyBytes(2..<6, to: start) }
        }
        #expect(bytes == TestTensor(Array(wanted[1..<rows.count - 1])).bytes)
    }

    @Test func mixedTypesAreWidened() throws {
        var map = RowMap()
        map.append(.mean([Row(source: 0, row: 0), Row(source: 1, row: 0)]), count: 2)
        let rows = try AlignedRows(
            matrices: [matrix(0, rows: 2, columns: 2, half: true), matrix(0, rows: 2, columns: 2)], rowLength: 2, map: map)
        #expect(try load(rows, 0..<4) == [0, 1, 10, 11])
    }

    @Test func meansAreRoundedOnce() throws {
        let values: [Float] = [1, 0x1p-24, 0x1p-24]
        let matrices = try values.map { value in
            try StoredTensor(Memory(bytes: TestTensor([value]).bytes), offset: 0, dtype: .f32, count: 1)
        }
        var map = RowMap()
        map.append(.mean((0..<3).map { Row(source: $0, row: 0) }))
        let rows = try AlignedRows(matrices: matrices, rowLength: 1, map: map)
        #expect(try load(rows, 0..<1) == [Float((1 + 0x1p-23) / 3)])
    }

    @Test func thePaddingIsTheSameFromManyThreads() throws {
        let rows = try AlignedRows(
            matrices: [matrix(0, rows: 500, columns: 33)], rowLength: 33,
            map: {
                var map = RowMap()
                map.append(.stored(Row(source: 0, row: 0)), count: 500)
                map.append(.padding, count: 12)
                return map
            }())
        let found = Mutex<Set<[Float]>>([])
        try AtOnce().forEach(12) { index in
            let row = try load(rows, (500 + index) * 33..<(501 + index) * 33)
            found.withLock { _ = $0.insert(row) }
        }
        #expect(found.withLock { $0 } == [(0..<33).map { Float(10 * 249.5 + Double($0)) }])
    }

    @Test func onlyPaddingIsZero() throws {
        var map = RowMap()
        map.append(.padding, count: 2)
        #expect(try load(AlignedRows(matrices: [], rowLength: 2, map: map), 0..<4) == [0, 0, 0, 0])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let matrices = [try matrix(0, rows: 6, columns: 2), try matrix(1, rows: 3, columns: 2)]
        for (matrices, length) in [(matrices, 2), ([matrices[0]], 2), (matrices, 0), (matrices, 5), (matrices, -1)] {
            #expect(throws: TesseraError.self) { try AlignedRows(matrices: matrices, rowLength: length, map: Self.map) }
        }
        var huge = RowMap()
        huge.append(.zero, count: .max / 2)
        #expect(throws: TesseraError.self) { try AlignedRows(matrices: matrices, rowLength: 2 << 32, map: huge) }
    }

    /// A method works on aligned matrices as on any others.
    @Test func methodsReadThem() throws {
        var swap = RowMap(), same = RowMap()
        swap.append(.stored(Row(source: 1, row: 1)))
        swap.append(.stored(Row(source: 1, row: 0)))
        same.append(.stored(Row(source: 0, row: 0)), count: 2)
        let matrices = [try matrix(0, rows: 2, columns: 2), try matrix(1, rows: 2, columns: 2)]
        let sources = try [same, swap].map { try AlignedRows(matrices: matrices, rowLength: 2, map: $0) }
        let sink = Collector()
        let inputs = TensorInputs(count: 2)
        let values = ParameterValues(
            shared: ["normalize": .flag(false)], perInput: [["weight": .number(1)], ["weight": .number(2)]])
        try Linear(values, inputs: inputs).merge(
            TensorPasses(
                shape: [2, 2], codec: Rounding(dtype: .f32), sources: sources, inputs: inputs, kernels: .best, runner: InOrder(),
                memory: MemoryBudget(bytes: 0),
                sinks: [sink]))
        #expect(try TestTensor(.f32, [2, 2], bytes: sink.bytes(count: 16)).values == [2020, 2023, 2010, 2013])
    }
}
