import Core
import LinearAlgebra
package import Operators

/// The part of a matrix that the first factors of an adapter took over (`ResidualMatrix`).
package struct ResidualReference: Sendable, Hashable, Codable {
    package let part: ResidualMatrix.Part
    package let rank: Int
    package let scale: Double
    /// The library that the result depends on (`LinearAlgebra.identity`).
    package let linearAlgebra: String

    package init(part: ResidualMatrix.Part, rank: Int, scale: Double, linearAlgebra: String) {
        self.part = part
        self.rank = rank
        self.scale = scale
        self.linearAlgebra = linearAlgebra
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        part = try container.decode(ResidualMatrix.Part.self, forKey: .part)
        rank = try container.decodeInteger(in: 1...Int(Int32.max), forKey: .rank)
        scale = try container.decode(Double.self, forKey: .scale)
        linearAlgebra = try container.decode(String.self, forKey: .linearAlgebra)
    }

    /// - Parameter shape: of the matrix.
    func memory(_ shape: [Int]) -> Int { ResidualMatrix.memory(shape, part, rank: rank) }

    /// - Parameter shape: of the matrix.
    func operations(_ shape: [Int]) -> Double { ResidualMatrix.operations(shape, part, rank: rank) }

    /// - Parameter shape: of the matrix.
    /// - Throws: `badData` when the matrix has no such part, `inputMissing` without the library, `temporary` where another host
    ///   may have the library of the plan.
    func open(_ matrix: any ElementSource, shape: [Int]) throws(TesseraError) -> ResidualMatrix {
        try LinearAlgebra.checkIdentity(linearAlgebra)
        return try ResidualMatrix(matrix, shape: shape, part: part, rank: rank, scale: scale)
    }
}

extension LinearAlgebra {
    /// - Throws: `temporary` unless this host computes as the one that planned; `inputMissing` when it has no library.
    static func checkIdentity(_ planned: String?) throws(TesseraError) {
        let own = try identity()
        guard own == planned else {
            throw TesseraError(
                .temporary, "computes with \(own), but the job was planned with \(planned ?? "no library")",
                advice: "install the same version of OpenBLAS on all hosts, and submit the job again")
        }
    }
}
