import Core
import Yams

/// What is done with a tensor that some of the models lack.
package enum MissingTensors: String, Sendable, CaseIterable {
    /// The recipe is refused.
    case refuse
    /// The base's tensor is copied.
    case base
    /// The tensor is merged from the models that have it.
    case present
    /// The output does not have it.
    case omit
}

extension Recipe {
    /// - Parameters:
    ///   - tensor: its name in the output.
    ///   - position: of its layer, 0...1.
    /// - Returns: `nil` where the recipe does not say.
    package func missing(_ tensor: String, at position: Double) -> MissingTensors? {
        guard case .string(let name)? = missing?.value(at: position, tensor: tensor) else { return nil }
        return MissingTensors(rawValue: name)
    }
}

extension RecipeReader {
    static let missingKey = "missing"

    mutating func readMissing(_ root: Node.Mapping) -> ParameterSetting? {
        guard let node = root[Self.missingKey], !node.isNull else { return nil }
        guard let setting = readSetting(node, name: Self.missingKey) else { return nil }
        let names = MissingTensors.allCases.map(\.rawValue)
        let isKnown = setting.scalars.allSatisfy { value in
            if case .string(let name) = value { names.contains(name) } else { false }
        }
        guard isKnown, !setting.scalars.isEmpty else {
            complain(
                "'\(Self.missingKey)' must say what to do with tensors that some models lack", at: node.line,
                advice: "write one of \(names.joined(separator: ", ")), or a list of {filter: PART_OF_TENSOR_NAME, value: ...}")
            return nil
        }
        return setting
    }
}
