package import Core
import TensorKernels

/// Takes over the entries of a model that matter most: `out = b + (x − b)·[I ≥ threshold]` (mergekit-compatible).
///
/// For each vector along the last dimension, `p` and `q` are the softmax of `x` and `b` plus 1e-8, and `kl = Σ p log(p/q)`. The
/// importance is `I = |x − b|·kl`, the threshold `median + 1.5·(third quartile − first quartile)` of all `I`, quantile `f` being
/// the element `⌊f·(n−1)⌋` in ascending order.
///
/// - Remark: exact quantiles where mergekit samples: above 10⁶ elements it draws them from a random million.
package struct ArceeFusion: MergeMethod {
    package static let name = "arcee_fusion"
    package static let summary = "Takes over the model's entries whose change matters most."
    package static let inputs = InputContract(base: .required, models: 1...1)
    package static let whenIncomplete = IncompleteTensor.copyLone
    package static let parameters: [Parameter] = []

    private let base: Int
    private let model: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        guard let model = inputs.models.first else { throw TesseraError(.badData, "the plan has no model for this tensor") }
        self.model = model
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        let count = Shape.count(shape)
        return OperatorCost(
            passes: Self.cutsRows(of: Self.rowLength(shape)) ? 4 : 3,
            memory: OrderStatistics.memory(queries: 3, count: count)
                + MemoryNeed(
                    shared: TensorPasses.rowStatisticsBytes(count: count, length: Self.rowLength(shape), width: 5),
                    perThread: Exponentials.byteCount))
    }

    private static func rowLength(_ shape: [Int]) -> Int { max(1, shape.last ?? 1) }

    /// Whether some rows do not lie within a tile.
    private static func cutsRows(of length: Int) -> Bool { FixedTree.tileElements % length != 0 }

    package func merge(_ tensor: TensorPasses) throws {
        guard tensor.count > 0 else { return }
        let length = Self.rowLength(tensor.shape)
        let weights = try divergences(tensor, length: length).map { Float($0 < 0 ? 0 : $0) }
        let quartiles = [0.25, 0.5, 0.75].map { share in
            OrderStatistics.Query(stream: 0, rank: tensor.count - Int(share * Double(tensor.count - 1)))
        }
        let found = try OrderStatistics.find(quartiles, in: tensor) { tile, _ in
            let target = tile.scratch(0), x = try tile.stored(model), b = try tile.stored(base)
            for piece in RowPieces(tile.range, length: length) {
                tile.kernels.importance(
                    x.advanced(by: piece.offset), b.advanced(by: piece.offset), factor: weights[piece.row],
                    into: target + piece.offset,
                    count: piece.count)
            }
            return UnsafePointer(target)
        }.map { Float(bitPattern: $0.pattern) }
        let threshold = found[1] + 1.5 * (found[2] - found[0])
        try tensor.emit { tile, out in
            let x = try tile.stored(model), b = try tile.stored(base)
            for piece in RowPieces(tile.range, length: length) {
                tile.kernels.swapImportant(
                    x.advanced(by: piece.offset), for: b.advanced(by: piece.offset), factor: weights[piece.row],
                    threshold: threshold,
                    into: out + piece.offset, count: piece.count)
            }
        }
    }

    /// `kl` of each row. Takes one pass, and reads the rows that do not lie within a tile once more.
    private func divergences(_ tensor: TensorPasses, length: Int) throws -> [Double] {
        let kernels = tensor.kernels, order = [model, base]
        // For both sources, a row's maximum and sum of exponentials; or for a row within a tile, its divergence alone.
        let found = try tensor.rowStatistics(length: length, width: 4) { tile, pieces, values in
            let rows = try order.map { try tile.stored($0) }
            for (position, piece) in pieces.enumerated() {
                let row = rows.map { $0.advanced(by: piece.offset) }, own = values + 4 * position
                if piece.count == length {
                    let exponentials = tile.workspace { Exponentials() }.values
                    own[0] = kernels.rowDivergence(row[0], row[1], exponentials: exponentials, count: length)
                    continue
                }
                for (index, source) in row.enumerated() {
                    let parts = kernels.softmaxParts(source, count: piece.count)
                    own[2 * index] = parts.maximum
                    own[2 * index + 1] = parts.sum
                }
            }
        } join: { total, part in
            // Pieces with different maxima are rescaled to the larger one.
            for index in [0, 2] {
                let maximum = max(total[index], part[index])
                total[index + 1] =
                    total[index + 1] * kernels.exponential(total[index] - maximum)
                    + part[index + 1] * kernels.exponential(part[index] - maximum)
                total[index] = maximum
            }
        }
        guard Self.cutsRows(of: length) else { return stride(from: 0, to: found.count, by: 4).map { found[$0] } }
        return try tensor.rowStatistics(length: length, width: 1) { tile, pieces, sums in
            let x = try tile.stored(model), b = try tile.stored(base)
            for (position, piece) in pieces.enumerated() {
                let row = 4 * piece.row
                sums[position] =
                    piece.count == length
                    ? found[row]
                    : kernels.divergence(
                        x.advanced(by: piece.offset), b.advanced(by: piece.offset),
                        softmax: [found[row], 1 / found[row + 1], found[row + 2], 1 / found[row + 3]], count: piece.count)
            }
        } join: { total, part in
            total[0] += part[0]
        }
    }
}

/// The exponentials of a row of both models.
private final class Exponentials {
    static let byteCount = 2 * FixedTree.tileElements * MemoryLayout<Double>.stride

    let values = UnsafeMutablePointer<Double>.allocate(capacity: 2 * FixedTree.tileElements)
    deinit { values.deallocate() }
}
