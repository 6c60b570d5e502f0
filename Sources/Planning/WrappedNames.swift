import Core
import Recipes

/// A model's tensor names without the wrappers that models of one architecture have or lack.
///
/// `transformer.h.0.ln_1.weight` of a language model is `h.0.ln_1.weight` in the bare model inside. A vision-language model has
/// `model.language_model.layers`, `language_model.model.layers` or `model.layers`, depending on the version of transformers. What
/// stands behind the wrappers is the same.
struct WrappedNames {
    private static let wrappers: Set<Substring> = ["base_model", "model", "transformer", "language_model"]
    /// Modules that went by another name in earlier versions of transformers.
    private static let formerNames = ["block_sparse_moe": "mlp", "embed_out": "lm_head"]
    /// First steps of a name that say which part of the model a tensor belongs to.
    private static let roles: Set<Substring> = [
        "blocks", "decoder", "embeddings", "encoder", "h", "layer", "layers", "shared", "text_model", "vision_model",
        "vision_tower", "visual",
    ]

    private let names: Set<ExactText>
    /// All names by what stands behind their wrappers.
    private let byCore: [ExactText: [String]]
    /// The one step that all names but those of heads begin with behind known wrappers, such as `bert`.
    private let ownWrapper: Substring?
    /// The first steps behind known wrappers, apart from roles.
    private let firstSteps: Set<Substring>

    init(_ names: [String]) {
        self.names = Set(names.map { ExactText($0) })
        byCore = Dictionary(grouping: names) { ExactText(Self.core(of: $0)) }
        ownWrapper = Self.commonStep(of: names)
        firstSteps = Set(byCore.keys.map { Self.firstStep(of: $0.string) }).subtracting(Self.roles)
    }

    /// What stands behind the known wrappers.
    static func core(of name: String) -> String {
        var core = name[...]
        while let dot = core.utf8.firstIndex(of: UInt8(ascii: ".")), wrappers.contains(core[..<dot]) {
            core = core[core.utf8.index(after: dot)...]
        }
        // Few names have such a step.
        guard formerNames.keys.contains(where: { name.holds($0) }) else { return String(core) }
        return core.split(separator: ".", omittingEmptySubsequences: false).map { formerNames[String($0)] ?? String($0) }
            .joined(separator: ".")
    }

    private static func firstStep(of core: String) -> Substring {
        Substring(core.utf8.prefix { $0 != UInt8(ascii: ".") })
    }

    private static func commonStep(of names: [String]) -> Substring? {
        var common: Substring?
        for name in names where !TensorName(name).isHead {
            let step = firstStep(of: core(of: name))
            guard !roles.contains(step), common == nil || common == step else { return nil }
            common = step
        }
        return common
    }

    /// The name of the same tensor among these.
    ///
    /// - Parameter others: the names that `name` is one of.
    /// - Returns: `nil` if there is none, or if there are several.
    func name(for name: String, of others: WrappedNames) -> String? {
        guard !names.contains(ExactText(name)) else { return name }
        let core = Self.core(of: name)
        if let found = only(core) { return found }
        // One of the models is wrapped once more.
        switch (ownWrapper, others.ownWrapper) {
        case (let own?, nil): return only("\(own).\(core)")
        case (nil, let other?) where core.hasPrefix("\(other)."): return only(String(core.dropFirst(other.count + 1)))
        default: return nil
        }
    }

    /// The same, where only a part of one of the models may be wrapped once more, as an encoder is beside its head.
    func closestName(for name: String, of others: WrappedNames) -> String? {
        if let found = self.name(for: name, of: others) { return found }
        let core = Self.core(of: name), step = Self.firstStep(of: core)
        if others.firstSteps.contains(step), !firstSteps.contains(step) { return only(String(core.dropFirst(step.count + 1))) }
        let found = firstSteps.subtracting(others.firstSteps).compactMap { only("\($0).\(core)") }
        return found.count == 1 ? found.first : nil
    }

    private func only(_ core: String) -> String? {
        guard let found = byCore[ExactText(core)], found.count == 1 else { return nil }
        return found.first
    }
}
