import Core
import Operators

/// The low-rank update that an adapter adds to a matrix (`LowRankUpdate`).
package struct LowRankReference: Sendable, Hashable, Codable {
    package private(set) var a: StoredReference
    package private(set) var b: StoredReference
    package let rank: Int
    package let scale: Double
    /// Whether the product of the factors is transposed before it is added.
    package let isTransposed: Bool

    package init(a: StoredReference, b: StoredReference, rank: Int, scale: Double, isTransposed: Bool) {
        self.a = a
        self.b = b
        self.rank = rank
        self.scale = scale
        self.isTransposed = isTransposed
    }

    mutating func renumberFiles(_ number: (Int) -> Int) {
        a.renumberFiles(number)
        b.renumberFiles(number)
    }

    /// Bytes of the factors as float32, twice, because transposed copies may be made.
    var memory: Int { 2 * (a.elementCount + b.elementCount) * MemoryLayout<Float>.stride }

    /// - Parameter shape: of the matrix.
    /// - Throws: `badData` when the factors do not fit the matrix or their files.
    func open(_ matrix: any ElementSource, shape: [Int], in files: [any ByteSource]) throws(TesseraError) -> LowRankUpdate {
        try LowRankUpdate(
            matrix, shape: shape, a: try a.open(in: files), b: try b.open(in: files), rank: rank, scale: scale,
            isTransposed: isTransposed)
    }
}
