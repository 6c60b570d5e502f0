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
