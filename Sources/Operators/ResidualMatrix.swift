package import Core
import LinearAlgebra
import Synchronization
package import TensorKernels

/// A matrix without the part that the first factors of an adapter took over: `W − s·B₀·A₀`.
///
/// PiSSA (arXiv 2404.02948, section 3): `s·B₀·A₀` is the sum of the `r` largest terms `σᵢ·uᵢ·vᵢᵀ` of the singular value
/// decomposition of `W`, whatever `s` is. OLoRA (arXiv 2406.01775, algorithm 1): `B₀·A₀` is the product of the first `r` columns
/// of `Q` and the first `r` rows of `R` in `W = Q·R`, which is the projection of `W` onto its own first `r` columns. Either
/// product is the same for all signs of the vectors. Computed in float64 by the first thread that needs it; the two factors of
/// the product are rounded to float32.
package final class ResidualMatrix: ElementSource {
    package enum Part: String, Sendable, Hashable, Codable {
        /// PiSSA's.
        case principal
        /// OLoRA's.
        case leadingColumns
    }

    package var dtype: DType { matrix.dtype }
    package var count: Int { matrix.count }

    private let matrix: any ElementSource
    private let part: Part
    private let rank: Int
    private let scale: Float
    private let rows: Int
    private let columns: Int
    private let taken = Mutex<LowRankProduct?>(nil)

    /// - Parameters:
    ///   - shape: of the matrix, `[rows, columns]`.
    ///   - rank: of the part.
    ///   - scale: what OLoRA's part is multiplied by.
    /// - Throws: `badData` for a shape that is no matrix's, or that has no part of this rank.
    package init(
        _ matrix: any ElementSource, shape: [Int], part: Part, rank: Int, scale: Double
    ) throws(TesseraError) {
        guard shape.count == 2, Self.holds(rank, shape), matrix.dtype.isArithmetic, Shape.elementCount(shape) == matrix.count
        else { throw TesseraError(.badData, "a part of rank \(rank) cannot be taken from the shape \(shape)") }
        self.matrix = matrix
        self.part = part
        self.rank = rank
        self.scale = part == .principal ? 1 : Float(scale)
        rows = shape[0]
        columns = shape[1]
    }

    /// Whether a matrix of this shape has a part of this rank that can be found.
    package static func holds(_ rank: Int, _ shape: [Int]) -> Bool {
        guard shape.count == 2, let least = shape.min(), let most = shape.max() else { return false }
        return (1...max(1, least)).contains(rank) && least > 0 && least <= LinearAlgebra.limit && most <= Int(Int32.max)
    }

    /// Float64 elements that are held at the same time while the part is found.
    private static func elements(_ shape: [Int], _ part: Part, _ rank: Int) -> Int {
        let least = shape.min() ?? 0, factors = rank * shape.reduce(0, +)
        let square = part == .principal ? least * least + LinearAlgebra.eigenvalueWork(least) : 0
        return Shape.count(shape) + square + factors
    }

    /// Bytes of memory while the part is found. Afterwards there is less.
    package static func memory(_ shape: [Int], _ part: Part, rank: Int) -> Int {
        elements(shape, part, rank) * MemoryLayout<Double>.stride + rank * shape.reduce(0, +) * MemoryLayout<Float>.stride
            + 12 * FixedTree.tileElements + LinearAlgebra.bufferBytes
    }

    /// Arithmetic operations of finding the part and of taking it from all elements.
    package static func operations(_ shape: [Int], _ part: Part, rank: Int) -> Double {
        let least = Double(shape.min() ?? 0), area = Double(Shape.count(shape)), taken = 4 * area * Double(rank)
        return taken + (part == .principal ? 2 * area * least + 9 * least * least * least : taken)
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard !range.isEmpty else { return }
        let product = try product(kernels)
        try matrix.load(range, into: target, scratch: scratch, kernels: kernels)
        product.add(range, scale: -scale, to: target, scratch: scratch, kernels: kernels)
    }

    package func prefetch(_ range: Range<Int>) { matrix.prefetch(range) }

    package func release(_ range: Range<Int>) { matrix.release(range) }

    /// The remaining elements, rounded to the matrix's own type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }

    // MARK: The part

    private func product(_ kernels: Kernels) throws -> LowRankProduct {
        try taken.withLock { taken in
            if let product = taken { return product }
            let space = MatrixSpace(elements: Self.elements([rows, columns], part, rank))
            let whole = try wholeMatrix(in: space, kernels)
            do throws(TesseraError) {
                try whole.checkFinite()
                let (left, right) = try part == .principal ? principal(of: whole, in: space) : leading(of: whole, in: space)
                let product = LowRankProduct(
                    rank: rank, rows: rows, columns: columns, left: left.elements.prefix(rows * rank).map { Float($0) },
                    right: right.elements.prefix(rank * columns).map { Float($0) })
                taken = product
                return product
            } catch {
                var error = error
                error.problem = "the matrix that an adapter's first factors were taken from \(error.problem)"
                throw error
            }
        }
    }

    private func wholeMatrix(in space: MatrixSpace, _ kernels: Kernels) throws -> Matrix {
        let whole = try space.matrix(rows: rows, columns: columns)
        guard let first = whole.elements.baseAddress else { return whole }
        try Scratch.with(elements: FixedTree.tileElements) { floats, scratch in
            for start in stride(from: 0, to: count, by: FixedTree.tileElements) {
                let range = start..<min(count, start + FixedTree.tileElements)
                try matrix.load(range, into: floats, scratch: scratch, kernels: kernels)
                kernels.narrow(floats, to: .f64, first + start, count: range.count)
                matrix.release(range)
            }
        }
        return whole
    }

    /// `W·V·Vᵀ`, or `U·Uᵀ·W` where there are fewer rows than columns, with the first `r` singular vectors: the eigenvectors of
    /// `Wᵀ·W` or `W·Wᵀ`.
    ///
    /// - Throws: `badData` where the last of these vectors is as good as the next.
    private func principal(of whole: Matrix, in space: MatrixSpace) throws(TesseraError) -> (left: Matrix, right: Matrix) {
        let isTall = rows >= columns, size = min(rows, columns)
        let square = try space.matrix(rows: size, columns: size)
        try isTall ? square.assign(whole.transposed, times: whole.view()) : square.assign(whole.view(), times: whole.transposed)
        let found = try square.eigenvalues(), negligible = Double(size) * Double.ulpOfOne * (found.values.first ?? 0)
        if rank < size, found.values[rank - 1] > negligible, found.values[rank - 1] - found.values[rank] <= negligible {
            throw undetermined("has equal singular values at places \(rank) and \(rank + 1)")
        }
        let vectors = found.vectors.view(columns: 0..<rank)
        let left = try space.matrix(rows: rows, columns: rank), right = try space.matrix(rows: rank, columns: columns)
        if isTall {
            try left.assign(whole.view(), times: vectors)
            for k in 0..<rank { for column in 0..<columns { right[k, column] = found.vectors[column, k] } }
        } else {
            try right.assign(vectors.transposed, times: whole.view())
            for row in 0..<rows { for k in 0..<rank { left[row, k] = found.vectors[row, k] } }
        }
        return (left, right)
    }

    /// `Q·Qᵀ·W`, with `Q` the first `r` columns of `W` made orthonormal, by Gram and Schmidt's procedure, twice for each.
    ///
    /// - Throws: `badData` where a column is a combination of those before it.
    private func leading(of whole: Matrix, in space: MatrixSpace) throws(TesseraError) -> (left: Matrix, right: Matrix) {
        let basis = try space.matrix(rows: rows, columns: rank), right = try space.matrix(rows: rank, columns: columns)
        func product(_ one: Int, _ other: Int) -> Double {
            (0..<rows).reduce(0) { $0 + basis[$1, one] * basis[$1, other] }
        }
        for k in 0..<rank {
            for row in 0..<rows { basis[row, k] = whole[row, k] }
            let length = product(k, k).squareRoot()
            for _ in 0..<2 {
                for other in 0..<k {
                    let common = product(other, k)
                    for row in 0..<rows { basis[row, k] -= common * basis[row, other] }
                }
            }
            let rest = product(k, k).squareRoot()
            guard rest > Double(rows) * Double.ulpOfOne * length else {
                throw undetermined("has a column \(k + 1) that is a combination of those before it")
            }
            basis.scaleColumn(k, by: 1 / rest)
        }
        try right.assign(basis.transposed, times: whole.view())
        return (basis, right)
    }

    private func undetermined(_ problem: String) -> TesseraError {
        TesseraError(
            .badData, "\(problem), so that PEFT's factors depend on the library that finds them",
            advice: "merge the adapter into its model with PEFT's merge_and_unload(), and name the result as a model")
    }
}
