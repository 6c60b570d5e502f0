package import Core
import Operators

/// Where a source of a tensor comes from: a file, or other sources that are transformed as they are read.
///
/// A new kind of source is a case here, and a file in this folder that declares what the case carries and how it is opened.
package indirect enum SourceReference: Sendable, Hashable, Codable {
    /// A tensor as it is stored in a file.
    case stored(StoredReference)
    /// A tensor to which a low-rank update is added.
    case lowRank(SourceReference, LowRankReference)
    /// A matrix whose vectors get other lengths.
    case rescaled(SourceReference, MagnitudeReference)
    /// A matrix without the part that the first factors of an adapter took over.
    case residual(SourceReference, ResidualReference)
    /// Matrices that are stored transposed.
    case transposed(SourceReference, TransposeReference)
    /// A tensor to which a task vector of a store is added.
    case packed(base: SourceReference, VectorReference)
    /// Rows of matrices, in the order of the output's vocabulary.
    case aligned([SourceReference], AlignmentReference)
}

extension SourceReference {
    /// The type of the elements for a reader of the source.
    package var dtype: DType {
        switch self {
        case .stored(let stored): stored.dtype
        case .lowRank(let matrix, _), .rescaled(let matrix, _), .residual(let matrix, _), .transposed(let matrix, _): matrix.dtype
        case .packed(let base, _): base.dtype
        case .aligned: .f32
        }
    }

    /// The shape for a reader of the source.
    var shape: [Int] {
        switch self {
        case .stored(let stored): stored.shape
        case .lowRank(let matrix, _), .rescaled(let matrix, _), .residual(let matrix, _): matrix.shape
        case .transposed(_, let transpose): transpose.shape
        case .packed(let base, _): base.shape
        case .aligned(_, let alignment): [alignment.map.rowCount, alignment.rowLength]
        }
    }

    /// Replaces every file index.
    package mutating func renumberFiles(_ number: (Int) -> Int) {
        switch self {
        case .stored(var stored):
            stored.renumberFiles(number)
            self = .stored(stored)
        case .lowRank(var matrix, var update):
            matrix.renumberFiles(number)
            update.renumberFiles(number)
            self = .lowRank(matrix, update)
        case .rescaled(var matrix, var magnitudes):
            matrix.renumberFiles(number)
            magnitudes.renumberFiles(number)
            self = .rescaled(matrix, magnitudes)
        case .residual(var matrix, let residual):
            matrix.renumberFiles(number)
            self = .residual(matrix, residual)
        case .transposed(var matrices, let transpose):
            matrices.renumberFiles(number)
            self = .transposed(matrices, transpose)
        case .packed(var base, var vector):
            base.renumberFiles(number)
            vector.renumberFiles(number)
            self = .packed(base: base, vector)
        case .aligned(var matrices, let alignment):
            for index in matrices.indices { matrices[index].renumberFiles(number) }
            self = .aligned(matrices, alignment)
        }
    }

    /// Stored bytes of all tensors that the source is made of, except for the factors of adapters.
    package var byteCount: Int {
        switch self {
        case .stored(let stored): stored.byteCount
        case .lowRank(let matrix, _), .rescaled(let matrix, _), .residual(let matrix, _), .transposed(let matrix, _):
            matrix.byteCount
        case .packed(let base, let vector): base.byteCount + vector.byteCount
        case .aligned(let matrices, _): matrices.reduce(0) { $0 + $1.byteCount }
        }
    }

    /// Arithmetic operations of reading all elements once, apart from decoding.
    var operations: Double {
        switch self {
        case .stored: 0
        case .lowRank(let matrix, let update): matrix.operations + 2 * Double(update.rank) * Double(Shape.count(shape))
        case .rescaled(let matrix, _): 2 * matrix.operations + 3 * Double(Shape.count(shape))
        case .residual(let matrix, let residual): 2 * matrix.operations + residual.operations(shape)
        case .transposed(let matrices, _): matrices.operations + 4 * Double(Shape.count(shape))
        case .packed(let base, _): base.operations
        case .aligned(let matrices, _): matrices.reduce(0) { $0 + $1.operations }
        }
    }

    /// Bytes of memory of the open source, without the matrices of aligned rows, which several sources share
    /// (`TensorWork.nestedSources`).
    package var memory: Int {
        switch self {
        case .stored: 0
        case .lowRank(let matrix, let update): matrix.memory + update.memory
        case .rescaled(let matrix, let magnitudes): matrix.memory + magnitudes.memory
        case .residual(let matrix, let residual): matrix.memory + residual.memory(shape)
        case .transposed(let matrices, _): matrices.memory
        case .packed(let base, _): base.memory
        case .aligned(_, let alignment): alignment.memory
        }
    }
}
