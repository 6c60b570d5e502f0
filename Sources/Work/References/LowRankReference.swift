import Core
package import Operators

/// The low-rank update that an adapter adds to a tensor (`LowRankUpdate`).
package struct LowRankReference: Sendable, Hashable, Codable {
    /// `nil` for the number 1, where `b` updates a bias.
    package private(set) var a: StoredReference?
    package private(set) var b: StoredReference
    package let rank: Int
    package let scale: Double
    /// Whether the product of the factors is transposed before it is added.
    package let isTransposed: Bool
    /// Where the factors belong to a mixture of experts.
    package let experts: ExpertFactors?

    package init(
        a: StoredReference?, b: StoredReference, rank: Int, scale: Double, isTransposed: Bool, experts: ExpertFactors? = nil
    ) {
        self.a = a
        self.b = b
        self.rank = rank
        self.scale = scale
        self.isTransposed = isTransposed
        self.experts = experts
    }

    mutating func renumberFiles(_ number: (Int) -> Int) {
        a?.renumberFiles(number)
        b.renumberFiles(number)
    }

    /// Bytes of the factors as float32, twice, because they are arranged anew.
    var memory: Int { 2 * ((a?.elementCount ?? 1) + b.elementCount) * MemoryLayout<Float>.stride }

    /// The rank, if the update is of one matrix.
    var rankOfMatrix: Int? { experts != nil && experts?.expert == nil ? nil : rank }

    /// - Parameters:
    ///   - shape: of the tensor.
    ///   - isOnMethodsBase: whether the operation takes differences from `matrix`.
    /// - Throws: `badData` when the factors do not fit the tensor or their files.
    func open(
        _ matrix: any ElementSource, shape: [Int], isOnMethodsBase: Bool, in files: [any ByteSource]
    ) throws(TesseraError) -> LowRankUpdate {
        var first: StoredTensor?
        if let a { first = try a.open(in: files) }
        return try LowRankUpdate(
            matrix, shape: shape, a: first, b: try b.open(in: files), rank: rank, scale: scale, isTransposed: isTransposed,
            experts: experts, isOnMethodsBase: isOnMethodsBase)
    }
}
