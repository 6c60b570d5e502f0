import Core
import Operators
import Work

/// A tensor of experts in the form of another model: made of those that the model itself stores.
///
/// transformers 5 computes with `experts.gate_up_proj` of shape `[experts, 2·inner, hidden]` and `experts.down_proj` of shape
/// `[experts, hidden, inner]`. Some families store them so, some with the last two axes exchanged, and most each expert for
/// itself, the two parts of `gate_up_proj` apart.
enum ExpertTensor {
    /// All experts in one tensor of this shape: of each the parts, one on top of the other. By part, then expert.
    case joined([[String]], shape: [Int], isTransposed: Bool)
    /// `rows` rows of one expert in a tensor of all.
    case one(of: String, expert: Int, rows: Range<Int>, isTransposed: Bool)
    /// All experts, with the last two axes exchanged.
    case transposed(String)

    /// - Parameter stored: a tensor as the model stores it, with what is done to it.
    /// - Returns: `nil` where the model lacks a tensor.
    func tensor(_ stored: (String) -> InputTensor?) -> InputTensor? {
        switch self {
        case .joined(let parts, let shape, let isTransposed):
            let experts = shape[0], columns = isTransposed ? shape[1] : shape[2], rows = isTransposed ? shape[2] : shape[1]
            var map = RowMap(), sources: [SourceReference] = [], types: Set<DType> = []
            for expert in 0..<experts {
                for names in parts {
                    guard let tensor = stored(names[expert]) else { return nil }
                    map.append(.stored(RowMap.SourceRow(source: sources.count, row: 0)), count: tensor.shape[0])
                    sources.append(tensor.source)
                    types.insert(tensor.dtype)
                }
            }
            let joined = SourceReference.aligned(sources, AlignmentReference(rowLength: columns, map: map))
            return InputTensor(
                source: isTransposed ? Self.exchanged(joined, to: [experts, columns, rows]) : joined, shape: shape,
                dtype: DType.narrowest(holding: types))
        case .one(let name, let expert, let rows, let isTransposed):
            guard let tensor = stored(name) else { return nil }
            let shape = tensor.shape, own = tensor.source.rows(expert * shape[1]..<(expert + 1) * shape[1], of: shape[2])
            let source = isTransposed ? Self.exchanged(own, to: [shape[2], shape[1]]) : own
            let columns = isTransposed ? shape[1] : shape[2], count = isTransposed ? shape[2] : shape[1]
            return InputTensor(
                source: rows == 0..<count ? source : source.rows(rows, of: columns), shape: [rows.count, columns],
                dtype: tensor.dtype)
        case .transposed(let name):
            guard let tensor = stored(name) else { return nil }
            let shape = [tensor.shape[0], tensor.shape[2], tensor.shape[1]]
            return InputTensor(source: Self.exchanged(tensor.source, to: shape), shape: shape, dtype: tensor.dtype)
        }
    }

    private static func exchanged(_ source: SourceReference, to shape: [Int]) -> SourceReference {
        .transposed(source, TransposeReference(shape: shape))
    }
}

extension SourceReference {
    /// Some rows, counted over all matrices of the source.
    ///
    /// - Parameter length: elements of a row.
    func rows(_ rows: Range<Int>, of length: Int) -> SourceReference {
        if case .stored(let stored) = self {
            return .stored(
                StoredReference(
                    file: stored.file, offset: stored.offset + rows.lowerBound * length * stored.dtype.bitWidth / 8,
                    dtype: stored.dtype, shape: [rows.count, length]))
        }
        var map = RowMap()
        map.append(.stored(RowMap.SourceRow(source: 0, row: rows.lowerBound)), count: rows.count)
        return .aligned([self], AlignmentReference(rowLength: length, map: map))
    }
}
