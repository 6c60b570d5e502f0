import Core
import TensorKernels

/// How a method cuts a tensor into vectors that it treats separately.
enum VectorCut: Sendable, Hashable {
    /// The whole tensor is one vector.
    case whole
    /// Each vector has this many consecutive elements.
    case rows(Int)
    /// This many vectors side by side: element `i` belongs to vector `i % width`.
    case columns(Int)

    /// Vectors along the last dimension; the whole tensor if it has fewer than two dimensions.
    static func alongLast(_ shape: [Int]) -> VectorCut { shape.count > 1 ? .rows(max(1, shape[shape.count - 1])) : .whole }

    /// Vectors along dimension 0.
    static func alongFirst(_ shape: [Int]) -> VectorCut {
        shape.count > 1 ? .columns(max(1, Shape.count(Array(shape.dropFirst())))) : .whole
    }
}

/// The dot products of vectors with each other and with themselves, in float64, for each piece of a `VectorCut`.
///
/// Norms and angles follow from dot products, and a result in the span of the inputs is given by coefficients. Two passes are
/// therefore enough, however many iterations a method takes.
struct DotProducts: Sendable {
    /// The number of vectors.
    let order: Int
    let cut: VectorCut
    /// Indexed by piece, then pair, for rows; by pair, then piece, for columns.
    private let values: [Double]

    /// Takes one pass.
    ///
    /// - Parameter rows: the elements of the `order` vectors in the current tile.
    init(
        _ order: Int, _ cut: VectorCut, of tensor: TensorPasses,
        _ rows: @escaping @Sendable (Tile) throws -> [UnsafePointer<Float>]
    ) throws {
        self.order = order
        self.cut = cut
        let pairs = Self.pairs(order)
        switch cut {
        case .whole:
            values = try tensor.sums(pairs.count) { tile, sums in
                let rows = try rows(tile)
                for (index, pair) in pairs.enumerated() {
                    sums[index] += tile.kernels.dot(rows[pair.0], rows[pair.1], count: tile.count)
                }
            }
        case .rows(let length):
            values = try tensor.rowStatistics(length: length, width: pairs.count) { tile, pieces, sums in
                let rows = try rows(tile)
                for (position, piece) in pieces.enumerated() {
                    for (index, pair) in pairs.enumerated() {
                        sums[position * pairs.count + index] = tile.kernels.dot(
                            rows[pair.0] + piece.offset, rows[pair.1] + piece.offset, count: piece.count)
                    }
                }
            } join: { total, part in
                for index in pairs.indices { total[index] += part[index] }
            }
        case .columns(let width):
            values = try tensor.columnSums(width: width, terms: pairs.count) { tile, pieces, sums in
                let rows = try rows(tile)
                for piece in pieces {
                    for (index, pair) in pairs.enumerated() {
                        tile.kernels.addProducts(
                            rows[pair.0] + piece.offset, rows[pair.1] + piece.offset, to: sums + index * width + piece.column,
                            count: piece.count)
                    }
                }
            }
        }
    }

    private static func pairs(_ order: Int) -> [(Int, Int)] { (0..<order).flatMap { i in (i..<order).map { (i, $0) } } }

    /// Memory for the products, and for the coefficients of all vectors.
    static func memory(order: Int, _ cut: VectorCut, shape: [Int]) -> MemoryNeed {
        let terms = order * (order + 1) / 2, count = Shape.count(shape)
        let bytes =
            switch cut {
            case .whole: TensorPasses.rowStatisticsBytes(count: count, length: count, width: terms)
            case .rows(let length): TensorPasses.rowStatisticsBytes(count: count, length: length, width: terms + order)
            case .columns(let width): TensorPasses.columnSumsBytes(width: width, terms: terms) + width * order * 4
            }
        return MemoryNeed(shared: bytes)
    }

    /// The number of pieces.
    var pieceCount: Int { values.count / max(1, order * (order + 1) / 2) }

    /// The dot product of vectors `i` and `j` in a piece.
    func callAsFunction(_ i: Int, _ j: Int, in piece: Int = 0) -> Double {
        let low = min(i, j), high = max(i, j)
        let pair = low * order - low * (low - 1) / 2 + (high - low)
        if case .columns(let width) = cut { return values[pair * width + piece] }
        return values[piece * (order * (order + 1) / 2) + pair]
    }

    /// The norm of vector `i` in a piece.
    func norm(_ i: Int, in piece: Int = 0) -> Double { self(i, i, in: piece).squareRoot() }
}

/// A linear combination of vectors, with separate coefficients for each piece of a `VectorCut`.
struct Combination: Sendable {
    private let cut: VectorCut
    /// Indexed by vector, then piece.
    private let coefficients: [[Float]]

    /// - Parameter piece: returns the coefficients in a piece.
    init(_ products: DotProducts, _ piece: (Int) -> [Double]) {
        cut = products.cut
        var coefficients = Array(repeating: [Float](), count: products.order)
        for index in 0..<products.pieceCount {
            for (vector, value) in zip(coefficients.indices, piece(index)) { coefficients[vector].append(Float(value)) }
        }
        self.coefficients = coefficients
    }

    /// The same coefficients for the whole tensor.
    init(_ values: [Double]) {
        cut = .whole
        coefficients = values.map { [Float($0)] }
    }

    /// `out = Σ cᵢ·rowᵢ`, in float32 and in order.
    func apply(_ rows: [UnsafePointer<Float>], of tile: Tile, into out: UnsafeMutablePointer<Float>) {
        let kernels = tile.kernels
        switch cut {
        case .whole: add(rows, at: 0, count: tile.count, coefficient: { $0.first ?? 0 }, into: out, kernels: kernels)
        case .rows(let length):
            for piece in RowPieces(tile.range, length: length) {
                add(rows, at: piece.offset, count: piece.count, coefficient: { $0[piece.row] }, into: out, kernels: kernels)
            }
        case .columns(let width):
            for piece in RowPieces(tile.range, length: width) {
                for (index, (row, own)) in zip(rows, coefficients).enumerated() {
                    own.withUnsafeBufferPointer { own in
                        guard let factors = own.baseAddress.map({ $0 + piece.column }) else { return }
                        let target = out + piece.offset
                        if index == 0 {
                            kernels.multiply(row + piece.offset, by: factors, into: target, count: piece.count)
                        } else {
                            kernels.multiplyAdd(factors, row + piece.offset, into: target, count: piece.count)
                        }
                    }
                }
            }
        }
    }

    private func add(
        _ rows: [UnsafePointer<Float>], at offset: Int, count: Int, coefficient: ([Float]) -> Float,
        into out: UnsafeMutablePointer<Float>, kernels: Kernels
    ) {
        for (index, (row, own)) in zip(rows, coefficients).enumerated() {
            if index == 0 {
                kernels.scale(row + offset, by: coefficient(own), into: out + offset, count: count)
            } else {
                kernels.axpy(coefficient(own), row + offset, into: out + offset, count: count)
            }
        }
    }
}

extension Tile {
    /// The sources of the current tile.
    func rows(_ indices: [Int]) throws -> [UnsafePointer<Float>] { try indices.map { UnsafePointer(try source($0)) } }

    /// The sources minus the base, or the sources if there is no base. To be called once per tile.
    func taskVectors(_ indices: [Int]) throws -> [UnsafePointer<Float>] {
        try indices.map { UnsafePointer(try taskVector($0)) }
    }
}

extension Double {
    /// Clamped to -1...1; NaN stays NaN.
    var asCosine: Double { self > 1 ? 1 : self < -1 ? -1 : self }
}

extension DotProducts {
    /// `y · vector` for the combination `y` of the vectors, if the tensor is one piece.
    func dot(_ combination: [Double], with vector: Int) -> Double {
        combination.indices.reduce(0) { $0 + combination[$1] * self($1, vector) }
    }

    /// The norm of a combination of the vectors; 0 if rounding made its square negative.
    func norm(ofCombination combination: [Double]) -> Double {
        let square = combination.indices.reduce(0) { $0 + combination[$1] * dot(combination, with: $1) }
        return square < 0 ? 0 : square.squareRoot()
    }
}
