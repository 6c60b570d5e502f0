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

        func checkUnchanged() throws(TesseraError) {}
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

    private func load(_ update: LowRankUpdate) throws -> [Float] {
        var found = [Float](repeating: 0, count: update.count)
        try withUnsafeTemporaryAllocation(byteCount: 8 * max(64, update.count), alignment: 64) { scratch in
            try found.withUnsafeMutableBufferPointer {
                try update.load(0..<$0.count, into: try #require($0.baseAddress), scratch: scratch, kernels: .best)
            }
        }
        return found
    }

    /// `einsum("o r e, e r i -> e o i", B, A)`, as PEFT reshapes the factors, or `"… -> e i o"` in models that transpose.
    @Test(arguments: [false, true])
    func factorsOfAllExperts(isTransposed: Bool) throws {
        let experts = 3, rank = 2, inputs = 4, outputs = 5
        let shape = [experts] + (isTransposed ? [inputs, outputs] : [outputs, inputs]), count = experts * inputs * outputs
        let w = random(count, seed: 1), a = random(experts * rank * inputs, seed: 2),
            b = random(outputs * rank * experts, seed: 3)
        let found = try load(
            LowRankUpdate(
                try stored(w), shape: shape, a: try stored(a), b: try stored(b), rank: rank, scale: 0.5,
                isTransposed: isTransposed, experts: ExpertFactors(count: experts)))
        for e in 0..<experts {
            for o in 0..<outputs {
                for i in 0..<inputs {
                    let index = (e * shape[1] + (isTransposed ? i : o)) * shape[2] + (isTransposed ? o : i)
                    let product = (0..<rank).reduce(0.0) { sum, k in
                        sum + Double(b[o * rank * experts + k * experts + e]) * Double(a[(e * rank + k) * inputs + i])
                    }
                    #expect(abs(Double(found[index]) - (Double(w[index]) + 0.5 * product)) < 1e-5)
                }
            }
        }
    }

    /// The second half of what a library stacks, of one expert, is that part of the whole.
    @Test func factorsOfOneExpert() throws {
        let experts = 3, rank = 2, inputs = 4, rows = 2, zeros = [Float](repeating: 0, count: 4 * rows * experts * inputs)
        let a = try stored(random(experts * rank * inputs, seed: 2)), b = try stored(random(2 * rows * rank * experts, seed: 3))
        let all = try load(
            LowRankUpdate(
                try stored(Array(zeros.prefix(experts * 2 * rows * inputs))), shape: [experts, 2 * rows, inputs], a: a, b: b,
                rank: rank, scale: 1, isTransposed: false, experts: ExpertFactors(count: experts)))
        func one(expert: Int, firstRow: Int) throws -> LowRankUpdate {
            try LowRankUpdate(
                try stored(Array(zeros.prefix(rows * inputs))), shape: [rows, inputs], a: a, b: b, rank: rank, scale: 1,
                isTransposed: false, experts: ExpertFactors(count: experts, expert: expert, firstRow: firstRow))
        }
        let start = (1 * 2 * rows + rows) * inputs
        #expect(try load(one(expert: 1, firstRow: rows)) == Array(all[start..<start + rows * inputs]))
        #expect(throws: TesseraError.self) { try one(expert: 1, firstRow: rows + 1) }
    }

    /// The kernel of a convolution is a matrix whose columns are all dimensions but the first; a bias is a column.
    @Test func convolutionsAndBiases() throws {
        let w = random(24, seed: 1), a = random(24, seed: 2), b = random(4, seed: 3)
        func update(_ shape: [Int]) throws -> LowRankUpdate {
            try LowRankUpdate(
                try stored(w), shape: shape, a: try stored(a), b: try stored(b), rank: 2, scale: 2, isTransposed: false)
        }
        #expect(try load(update([2, 3, 2, 2])) == load(update([2, 12])))
        let bias = try LowRankUpdate(
            try stored([1, 2, 3]), shape: [3], a: nil, b: try stored([10, 20, 30]), rank: 1, scale: 0.5, isTransposed: false)
        #expect(try load(bias) == [6, 12, 18])
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
