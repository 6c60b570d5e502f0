import Core
package import Operators

/// How rows of several matrices make up a matrix in the order of the output's vocabulary (`AlignedRows`).
package struct AlignmentReference: Sendable, Hashable, Codable {
    /// Elements of a row.
    package let rowLength: Int
    /// Where each row comes from.
    package let map: RowMap

    package init(rowLength: Int, map: RowMap) {
        self.rowLength = rowLength
        self.map = map
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        rowLength = try container.decodeInteger(in: 1...Shape.elementLimit, forKey: .rowLength)
        map = try container.decode(RowMap.self, forKey: .map)
    }

    /// Bytes of the mean row.
    var memory: Int { rowLength * MemoryLayout<Float>.stride }

    /// - Throws: `badData` when the matrices have rows of another length, or lack rows that the map names.
    func open(_ matrices: [any ElementSource]) throws(TesseraError) -> AlignedRows {
        try AlignedRows(matrices: matrices, rowLength: rowLength, map: map)
    }
}
