import Core
import Operators
import Work

/// A merge's one operation and one output, for tests that look into plans.
extension TensorWork {
    var merge: MergeOperation? {
        if case .merge(let merge) = operation { merge } else { nil }
    }

    var dtype: DType? { outputs.first?.dtype }
    var method: String? { merge?.method }
    var base: Int? { merge?.base }
    var randomKey: UInt64? { merge?.randomKey }
    var values: ParameterValues { merge?.values ?? ParameterValues() }
}

extension SourceReference {
    /// The file of the tensor that everything else is done to.
    var file: Int? {
        switch self {
        case .stored(let stored): stored.file
        case .lowRank(let matrix, _), .rescaled(let matrix, _), .residual(let matrix, _), .transposed(let matrix, _): matrix.file
        case .packed(let base, _): base.file
        case .aligned: nil
        }
    }

    var lowRank: LowRankReference? {
        if case .lowRank(_, let update) = self { update } else { nil }
    }
}
