import Core
import Operators
import Work

/// One tensor in all checkpoints of a sweep: one for each point, the same but for parameters.
struct SweptTensor {
    let points: [PlannedTensor]

    /// The work on the tensor: where points differ in nothing but the method's scale, one merge makes their outputs.
    ///
    /// - Parameter outputs: of each point, where they lie.
    func work(outputs: [[OutputTensor]]) -> [TensorWork] {
        var groups: [(common: PlannedTensor, scales: [Double], points: [Int])] = []
        var positions: [ParameterValues: Int] = [:]
        for (index, point) in points.enumerated() {
            guard let scale = point.scale else {
                groups.append((point, [], [index]))
                continue
            }
            if let position = positions[scale.others] {
                groups[position].scales.append(scale.value)
                groups[position].points.append(index)
            } else {
                positions[scale.others] = groups.count
                groups.append((point, [scale.value], [index]))
            }
        }
        return groups.map { group in
            group.common.merging(scales: group.scales).work(outputs: group.points.flatMap { outputs[$0] })
        }
    }
}

extension PlannedTensor {
    private var scaleName: String? { MergeMethods.named(method)?.scale }

    /// The value of the method's scale, and all other values; `nil` for a method that has no scale, and for factors.
    fileprivate var scale: (value: Double, others: ParameterValues)? {
        // Factors are found for one value at a time.
        guard factors == nil, let name = scaleName, case .number(let value)? = values.shared[name] else { return nil }
        var others = values
        others.shared[name] = nil
        return (value, others)
    }

    /// The tensor with several values of the method's scale.
    fileprivate func merging(scales: [Double]) -> PlannedTensor {
        guard scales.count > 1, let name = scaleName else { return self }
        var tensor = self
        tensor.values.shared[name] = .numbers(scales)
        return tensor
    }
}
