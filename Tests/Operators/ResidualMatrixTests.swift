import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// What is left of a matrix without the part that an adapter's first factors held, against the definitions in float64.
@Suite struct ResidualMatrixTests {
    private static func stored(_ values: [Float]) throws -> StoredTensor {
        try StoredTensor(RecordingBytes(TestTensor(values).bytes), offset: 0, dtype: .f32, count: values.count)
    }

    private static func load(_ source: some ElementSource, _ range: Range<Int>) throws -> [Float] {
        var found = [Float](repeating: 0, count: range.count)
        try withUnsafeTemporaryAllocation(byteCount: 8 * range.count, alignment: 64) { scratch in
            try found.withUnsafeMutableBufferPointer {
                try source.load(range, into: try #require($0.baseAddress), scratch: scratch, kernels: .best)
            }
        }
        return found
    }

    /// As many orthonormal vectors.
    private static func orthonormal(_ count: Int, _ length: Int, _ random: inout SplitMix) -> [[Double]] {
        var vectors: [[Double]] = []
        while vectors.count < count {
            var vector = (0..<length).map { _ in Double.random(in: -1...1, using: &random) }
            for _ in 0..<2 {
                for other in vectors {
                    let common = zip(vector, other).reduce(0) { $0 + $1.0 * $1.1 }
                    for index in vector.indices { vector[index] -= common * other[index] }
                }
            }
            let norm = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
            vectors.append(vector.map { $0 / norm })
        }
        return vectors
    }

    /// A matrix is made of known singular values and vectors; the residual has all but the largest.
    @Test(arguments: [(40, 7), (7, 40), (9, 9)], [1, 4, 7])
    func theLargestSingularValuesAreTaken(size: (rows: Int, columns: Int), rank: Int) throws {
        var random = SplitMix(seed: 3)
        let (rows, columns) = size, terms = min(rows, columns)
        let left = Self.orthonormal(terms, rows, &random), right = Self.orthonormal(terms, columns, &random)
        let values = (0..<terms).map { 5 / Double($0 + 1) }.reversed()
        func matrix(_ chosen: some Sequence<Double>) -> [Double] {
            let terms = zip(chosen, zip(left, right))
            return (0..<rows * columns).map { index in
                terms.reduce(0) { $0 + $1.0 * $1.1.0[index / columns] * $1.1.1[index % columns] }
            }
        }
        let source = try ResidualMatrix(
            try Self.stored(matrix(values).map { Float($0) }), shape: [rows, columns], part: .principal, rank: rank, scale: 0.5)
        let found = try Self.load(source, 0..<rows * columns)
        let expected = matrix(values.enumerated().map { $0 < terms - rank ? $1 : 0 })
        for (own, other) in zip(found, expected) { #expect(abs(Double(own) - other) < 2e-6) }
        // Any part has the bits of the whole.
        #expect(try Self.load(source, 5..<rows * columns - 3) == Array(found[5..<rows * columns - 3]))
    }

    /// The residual is at right angles to the first columns, and with the scale 1 nothing is left of these.
    @Test(arguments: [(40, 7), (7, 40), (9, 9)], [1, 5])
    func theFirstColumnsAreTaken(size: (rows: Int, columns: Int), rank: Int) throws {
        var random = SplitMix(seed: 4)
        let (rows, columns) = size
        let values = (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) }
        func residual(_ scale: Double) throws -> [Float] {
            let source = try ResidualMatrix(
                try Self.stored(values), shape: [rows, columns], part: .leadingColumns, rank: rank, scale: scale)
            return try Self.load(source, 0..<values.count)
        }
        let whole = try residual(1)
        for first in 0..<rank {
            for column in 0..<columns {
                let product = (0..<rows).reduce(0.0) {
                    $0 + Double(values[$1 * columns + first]) * Double(whole[$1 * columns + column])
                }
                #expect(abs(product) < 1e-5)
            }
            #expect((0..<rows).allSatisfy { abs(whole[$0 * columns + first]) < 1e-6 })
        }
        for ((value, rest), half) in zip(zip(values, whole), try residual(0.5)) { #expect(abs((value + rest) / 2 - half) < 1e-6) }
    }

    /// Where the vectors are not determined, neither are PEFT's factors.
    @Test func partsThatAreNotDetermined() throws {
        let identity: [Float] = [1, 0, 0, 0, 1, 0, 0, 0, 1], dependent: [Float] = [1, 2, 0, 1, 2, 1, 3, 6, 4]
        func load(_ values: [Float], _ part: ResidualMatrix.Part, _ rank: Int) throws -> [Float] {
            try Self.load(
                ResidualMatrix(try Self.stored(values), shape: [3, 3], part: part, rank: rank, scale: 1), 0..<9)
        }
        let equal = #expect(throws: TesseraError.self) { try load(identity, .principal, 2) }
        #expect(equal?.code == .badData && equal?.problem.contains("equal singular values at places 2 and 3") == true)
        let combined = #expect(throws: TesseraError.self) { try load(dependent, .leadingColumns, 2) }
        #expect(combined?.problem.contains("column 2 that is a combination") == true)
        #expect(throws: TesseraError.self) { try load([.nan] + identity.dropFirst(), .principal, 1) }
        // All of it, and nothing at all, are determined.
        #expect(try load(identity, .principal, 3).allSatisfy { abs($0) < 1e-6 })
        #expect(try load([Float](repeating: 0, count: 9), .principal, 2) == [Float](repeating: 0, count: 9))
    }

    @Test(arguments: [([2, 3], 3), ([2, 3], 0), ([6], 1), ([2, 3, 1], 1), ([3, 3], 1)])
    func shapesWithoutSuchAPart(shape: [Int], rank: Int) throws {
        let matrix = try Self.stored([1, 2, 3, 4, 5, 6])
        #expect(throws: TesseraError.self) {
            try ResidualMatrix(matrix, shape: shape, part: .principal, rank: rank, scale: 1)
        }
    }

    // MARK: Transposed matrices

    /// Ranges begin and end inside rows, in rows longer than a tile, and in several matrices.
    @Test(arguments: [(1, 3, 9000), (1, 9000, 3), (3, 7, 11), (2, 1, 5), (2, 5, 1)])
    func matricesAreTransposed(size: (count: Int, rows: Int, columns: Int)) throws {
        let (count, rows, columns) = size, area = rows * columns
        let values = (0..<count * area).map { Float($0) }
        let source = try TransposedMatrices(try Self.stored(values), rows: rows, columns: columns)
        let expected = values.indices.map { index in
            let row = index % area / columns, column = index % columns
            return values[index / area * area + column * rows + row]
        }
        #expect(try Self.load(source, values.indices) == expected)
        for range in [1..<2, 1..<values.count, values.count / 3..<values.count - 1] {
            #expect(try Self.load(source, range) == Array(expected[range]))
        }
        var bytes = [UInt8](repeating: 0, count: 4 * values.count)
        try bytes.withUnsafeMutableBytes { try source.copyBytes(0..<4 * values.count, to: try #require($0.baseAddress)) }
        #expect(bytes == TestTensor(expected).bytes)
    }

    @Test(arguments: [(4, 2), (0, 6), (-1, -6)])
    func elementsThatMakeNoMatrices(rows: Int, columns: Int) throws {
        let values = try Self.stored([1, 2, 3, 4, 5, 6])
        #expect(throws: TesseraError.self) { try TransposedMatrices(values, rows: rows, columns: columns) }
    }
}
