import Checkpoints
import Core
import Operators
import Work

/// What an adapter does to one tensor of a model. A tensor may undergo several changes, in this order.
enum AdapterChange {
    /// The tensor was trained whole.
    case replaced(TensorEntry)
    /// Factors are multiplied and added; `a` is `nil` where `b` updates a bias.
    case lowRank(a: TensorEntry?, b: TensorEntry, rank: Int, scale: Double, isTransposed: Bool, experts: ExpertFactors?)
    /// The tensor's vectors get other lengths.
    case rescaled(TensorEntry, axis: RescaledMatrix.Axis)
    /// What the first factors held is taken away, before anything else.
    case reduced(ResidualReference)
    /// Rows were trained: row `i` of the entry is row `indices[i]` of the tensor.
    case rows(TensorEntry, indices: [Int])
    /// Some rows of the tensor undergo changes as a tensor of their own.
    indirect case part(Range<Int>, [AdapterChange])

    /// - Parameter file: the adapter's.
    func applied(to tensor: InputTensor, file: Int) -> InputTensor {
        var changed = tensor
        switch self {
        case .replaced(let entry):
            changed.source = .stored(StoredReference(entry, inFile: file))
            changed.shape = entry.shape
            changed.dtype = entry.dtype
        case .lowRank(let a, let b, let rank, let scale, let isTransposed, let experts):
            changed.source = .lowRank(
                tensor.source,
                LowRankReference(
                    a: a.map { StoredReference($0, inFile: file) }, b: StoredReference(b, inFile: file), rank: rank, scale: scale,
                    isTransposed: isTransposed, experts: experts))
        case .rescaled(let magnitudes, let axis):
            changed.source = .rescaled(
                tensor.source, MagnitudeReference(StoredReference(magnitudes, inFile: file), axis: axis))
        case .reduced(let residual): changed.source = .residual(tensor.source, residual)
        case .rows(let entry, let indices):
            let trained = Dictionary(zip(indices, indices.indices), uniquingKeysWith: { first, _ in first })
            var map = RowMap(), next = 0
            for row in trained.keys.sorted() {
                map.append(.stored(RowMap.SourceRow(source: 0, row: next)), count: row - next)
                map.append(.stored(RowMap.SourceRow(source: 1, row: trained[row] ?? 0)))
                next = row + 1
            }
            map.append(.stored(RowMap.SourceRow(source: 0, row: next)), count: tensor.shape[0] - next)
            changed.source = .aligned(
                [tensor.source, .stored(StoredReference(entry, inFile: file))],
                AlignmentReference(rowLength: max(1, tensor.shape.dropFirst().reduce(1, *)), map: map))
        case .part(let rows, let changes):
            let length = max(1, tensor.shape.dropFirst().reduce(1, *))
            var part = InputTensor(
                source: tensor.source.rows(rows, of: length), shape: [rows.count] + tensor.shape.dropFirst(), dtype: tensor.dtype)
            for change in changes { part = change.applied(to: part, file: file) }
            var map = RowMap()
            map.append(.stored(RowMap.SourceRow(source: 0, row: 0)), count: rows.lowerBound)
            map.append(.stored(RowMap.SourceRow(source: 1, row: 0)), count: rows.count)
            map.append(.stored(RowMap.SourceRow(source: 0, row: rows.upperBound)), count: tensor.shape[0] - rows.upperBound)
            changed.source = .aligned([tensor.source, part.source], AlignmentReference(rowLength: length, map: map))
        }
        return changed
    }

    /// The change of some of the tensor's rows; `nil` where these do not change by themselves.
    func rows(_ rows: Range<Int>) -> AdapterChange? {
        switch self {
        case .replaced(let entry): .replaced(entry.rows(rows))
        case .lowRank(let a, let b, let rank, let scale, false, nil):
            .lowRank(a: a, b: b.rows(rows), rank: rank, scale: scale, isTransposed: false, experts: nil)
        case .rescaled(let magnitudes, .rows): .rescaled(magnitudes.rows(rows), axis: .rows)
        case .lowRank, .rescaled, .reduced, .rows, .part: nil
        }
    }
}

/// A tensor as a model has it.
struct InputTensor {
    var source: SourceReference
    var shape: [Int]
    /// The type that it is stored in. Rows that an adapter replaces are read as float32.
    var dtype: DType
}

extension TensorEntry {
    /// Some of its rows, which lie together.
    fileprivate func rows(_ rows: Range<Int>) -> TensorEntry {
        let shape = [rows.count] + shape.dropFirst(), length = byteCount / max(1, self.shape.first ?? 1)
        let start = range.lowerBound + rows.lowerBound * length
        return TensorEntry(name: name, dtype: dtype, shape: shape, range: start..<start + rows.count * length)
    }
}
