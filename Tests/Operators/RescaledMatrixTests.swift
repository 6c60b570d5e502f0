import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// Vectors with new lengths, against the definition in float64.
@Suite struct RescaledMatrixTests {
    private static func stored(_ values: [Float]) throws -> StoredTensor {
        try StoredTensor(RecordingBytes(TestTensor(values).bytes), offset: 0, dtype: .f32, count: values.count)
    }

    private static func load(_ source: RescaledMatrix, _ range: Range<Int>) throws -> [Float] {
        var found = [Float](repeating: 0, count: range.count)
        try withUnsafeTemporaryAllocation(byteCount: 8 * range.count, alignment: 64) { scratch in
            try found.withUnsafeMutableBufferPointer {
                try source.load(range, into: try #require($0.baseAddress), scratch: scratch, kernels: .best)
            }
        }
        return found
    }

    /// Rows longer than a tile, and more rows than one tile holds.
    @Test(arguments: [(3, 9000), (9000, 3), (7, 11)], [RescaledMatrix.Axis.rows, .columns])
    func vectorsGetTheirLengths(size: (rows: Int, columns: Int), axis: RescaledMatrix.Axis) throws {
        let (rows, columns) = size, vectors = axis == .rows ? rows : columns
        var random = SplitMix(seed: 5)
        var values = (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) }
        // The first vector is zero.
        for index in values.indices where (axis == .rows ? index / columns : index % columns) == 0 { values[index] = 0 }
        let magnitudes = (0..<vectors).map { _ in Float.random(in: 0...2, using: &random) }
        func source() throws -> RescaledMatrix {
            try RescaledMatrix(
                try Self.stored(values), shape: [rows, columns], magnitudes: try Self.stored(magnitudes), axis: axis)
        }
        var squares = [Double](repeating: 0, count: vectors)
        for (index, value) in values.enumerated() {
            squares[axis == .rows ? index / columns : index % columns] += Double(value) * Double(value)
        }
        let whole = try Self.load(source(), 0..<values.count)
        for (index, value) in whole.enumerated() {
            let vector = axis == .rows ? index / columns : index % columns
            let expected = vector == 0 ? 0 : Double(values[index]) * Double(magnitudes[vector]) / squares[vector].squareRoot()
            #expect(abs(Double(value) - expected) < 1e-6)
        }
        // Any part has the bits of the whole, also when it is the first that is read.
        let part = values.count / 3..<values.count - 1
        #expect(try Self.load(source(), part) == Array(whole[part]))
    }

    @Test func magnitudesThatDoNotFitAreRefused() throws {
        let matrix = try Self.stored([1, 2, 3, 4, 5, 6])
        func rescale(_ shape: [Int], _ count: Int, _ axis: RescaledMatrix.Axis) throws {
            _ = try RescaledMatrix(
                matrix, shape: shape, magnitudes: try Self.stored([Float](repeating: 1, count: count)), axis: axis)
        }
        try rescale([2, 3], 2, .rows)
        try rescale([2, 3], 3, .columns)
        try rescale([2, 3, 1], 2, .rows)
        for (shape, count, axis) in [
            ([2, 3], 3, RescaledMatrix.Axis.rows), ([2, 3], 2, .columns), ([6], 6, .rows), ([0, 3], 0, .rows),
            ([4, 3], 4, .rows),
        ] {
            #expect(throws: TesseraError.self) { try rescale(shape, count, axis) }
        }
    }
}
