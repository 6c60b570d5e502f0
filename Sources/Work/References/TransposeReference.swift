import Core
import Operators

/// Matrices that are stored transposed (`TransposedMatrices`).
package struct TransposeReference: Sendable, Hashable, Codable {
    /// `[…, rows, columns]` as they are read.
    package let shape: [Int]

    /// - Parameter shape: of two axes or more.
    package init(shape: [Int]) { self.shape = shape }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        shape = try container.decodeShape(forKey: .shape)
    }

    /// - Throws: `badData` when the elements make no such matrices.
    func open(_ matrices: any ElementSource) throws(TesseraError) -> TransposedMatrices {
        guard shape.count > 1, Shape.elementCount(shape) == matrices.count else {
            throw TesseraError(.badData, "\(matrices.count) elements are no matrices of the shape \(shape)")
        }
        return try TransposedMatrices(matrices, rows: shape[shape.count - 2], columns: shape[shape.count - 1])
    }
}
