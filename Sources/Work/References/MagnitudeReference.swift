import Core
package import Operators

/// The trained lengths of a matrix's vectors (`RescaledMatrix`).
package struct MagnitudeReference: Sendable, Hashable, Codable {
    package private(set) var magnitudes: StoredReference
    package let axis: RescaledMatrix.Axis

    package init(_ magnitudes: StoredReference, axis: RescaledMatrix.Axis) {
        self.magnitudes = magnitudes
        self.axis = axis
    }

    mutating func renumberFiles(_ number: (Int) -> Int) { magnitudes.renumberFiles(number) }

    /// Bytes of the norms and of the buffer that they are computed in.
    var memory: Int { RescaledMatrix.memory(vectors: magnitudes.elementCount) }

    /// - Parameter shape: of the matrix.
    /// - Throws: `badData` when the magnitudes do not fit the matrix or their file.
    func open(_ matrix: any ElementSource, shape: [Int], in files: [any ByteSource]) throws(TesseraError) -> RescaledMatrix {
        try RescaledMatrix(matrix, shape: shape, magnitudes: try magnitudes.open(in: files), axis: axis)
    }
}
