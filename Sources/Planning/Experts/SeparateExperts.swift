import Recipes

/// The tensors of experts that a checkpoint holds each for itself, such as `mlp.experts.7.gate_proj.weight`.
struct SeparateExperts {
    /// What makes up a tensor of all experts, by its last step: the parts' names in the families of models, in the order in which
    /// they are stacked.
    static let parts = [
        "gate_up_proj": [["gate_proj", "up_proj"], ["w1", "w3"], ["fc1", "fc3"]],
        "down_proj": [["down_proj"], ["w2"], ["fc2"]],
        // Nemotron-H's experts have no gate.
        "up_proj": [["up_proj"]],
    ]

    /// By the module's path behind wrappers, the part's name, and the expert.
    private var modules: [String: [Substring: [Int: String]]] = [:]

    init(_ names: [String]) {
        for name in names {
            let steps = WrappedNames.core(of: name).split(separator: ".")
            guard steps.count > 3, steps.last == "weight", let expert = Int(steps[steps.count - 3]) else { continue }
            modules[steps.dropLast(3).joined(separator: "."), default: [:]][steps[steps.count - 2], default: [:]][expert] = name
        }
    }

    /// - Returns: the names in the order of the experts; `nil` unless there are such of all experts.
    func names(of module: String, part: String) -> [String]? {
        guard let parts = modules[WrappedNames.core(of: module)], let found = parts[Substring(part)],
            let count = parts.values.map(\.count).max()
        else { return nil }
        let names = (0..<count).compactMap { found[$0] }
        return names.count == count ? names : nil
    }
}
