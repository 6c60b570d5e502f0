import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// Adapters folded while a matrix is read, against the product written out.
@Suite struct LowRankTests {
    private struct Bytes: ByteSource {
        let identity = ""
        let bytes: [UInt8]
        var size: Int { bytes.count }

        func withBytes<Result>(
            _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
        ) throws -> Result {
            try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[range])) }
        }

        func prefetch(_ range: Range<Int>) {}
        func release(_ range: Range<Int>) {}
    }

    private func random(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Float.random(in: -1...1, using: &random) }
    }

    private func stored(_ values: [Float]) throws -> StoredTensor {
        try StoredTensor(Bytes(bytes: TestTensor(values).bytes), offset: 0, dtype: .f32, count: values.count)
    }

    @Test(arguments: [(5, 7, 3, false), (5, 7, 3, true), (1, 9000, 2, false), (70, 1, 4, true)], Kernels.available)
    func isTheProduct(shape: (rows: Int, columns: Int, rank: Int, isTransposed: Bool), kernels: Kernels) throws {
        let (rows, columns, rank, isTransposed) = shape
        let w = random(rows * columns, seed: 1)
        let a = random(rank * (isTransposed ? rows : columns), seed: 2),
            b = random(rank * (isTransposed ? columns : rows), seed: 3)
        let update = try LowRankUpdate(
            try stored(w), shape: [rows, columns], a: try stored(a), b: try stored(b), rank: rank, scale: 0.5,
            isTransposed: isTransposed)
        // Any range of the matrix, also one that begins and ends inside a row.
        for range in [0..<rows * columns, rows * columns / 3..<rows * columns - 1] {
            var found = [Float](repeating: 0, count: range.count)
            try withUnsafeTemporaryAllocation(byteCount: 8 * 8192, alignment: 64) { scratch in
                try found.withUnsafeMutableBufferPointer {
                    try update.load(range, into: try #require($0.baseAddress), scratch: scratch, kernels: kernels)
                }
            }
            for (index, value) in zip(range, found) {
                let i = index / columns, j = index % columns
                let product = (0..<rank).reduce(0.0) { sum, k in
                    sum
                        + (isTransposed
                            ? Double(a[k * rows + i]) * Double(b[j * rank + k])
                            : Double(b[i * rank + k]) * Double(a[k * columns + j]))
                }
                #expect(abs(Double(value) - (Double(w[index]) + 0.5 * product)) < 1e-5)
            }
        }
        var bytes = [UInt8](repeating: 0, count: 4 * rows * columns)
        try bytes.withUnsafeMutableBytes { try update.copyBytes(0..<$0.count, to: try #require($0.baseAddress)) }
        #expect(bytes != TestTensor(w).bytes, "a copy has the adapter in it too")
    }

    @Test func factorsThatDoNotFitAreRefused() throws {
        let w = try stored(random(6, seed: 1)), a = try stored(random(2, seed: 2)), b = try stored(random(3, seed: 3))
        _ = try LowRankUpdate(w, shape: [3, 2], a: a, b: b, rank: 1, scale: 1, isTransposed: false)
        #expect(throws: TesseraError.self) {
            try LowRankUpdate(w, shape: [3, 2], a: b, b: a, rank: 1, scale: 1, isTransposed: false)
        }
        #expect(throws: TesseraError.self) {
            try LowRankUpdate(w, shape: [6], a: a, b: b, rank: 1, scale: 1, isTransposed: false)
        }
        #expect(throws: TesseraError.self) {
            try LowRankUpdate(w, shape: [3, 2], a: a, b: b, rank: 0, scale: 1, isTransposed: false)
        }
    }
}
