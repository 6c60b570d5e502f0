import Checkpoints
import Core
import Recipes

/// The head of a model that has none of its own: the embedding serves as the head.
struct TiedHead {
    /// The model's embedding.
    let embedding: String
    /// What the head is called when it stands by itself; `nil` where the embedding's name does not show it.
    let name: String?

    private static let key = "tie_word_embeddings"
    /// Ends of the names of classes that have a head over the vocabulary.
    private static let classes = ["CausalLM", "LMHeadModel", "ConditionalGeneration", "DoubleHeadsModel"]

    /// - Returns: `nil` for a model that has a head, or that needs none.
    init?(_ model: Checkpoint) {
        guard !model.tensorNames.contains(where: { TensorName($0).isHead }),
            let embedding = model.tensorNames.first(where: { TensorName($0).isTokenEmbedding }), let config = model.config
        else { return nil }
        // A class with a head whose checkpoint has none ties it, whatever its default is called.
        guard Self.isTied(config) ?? Self.hasHeadClass(config) else { return nil }
        self.embedding = embedding
        name = Self.headName(for: embedding)
    }

    /// Whether the embedding of a model without a head may be its head: not where the config unties them, or names only classes
    /// without a head.
    static func mayServe(_ model: Checkpoint) -> Bool {
        guard let config = model.config else { return true }
        return isTied(config) ?? (config.strings(["architectures"]).isEmpty || hasHeadClass(config))
    }

    /// Whether a model without a head lacks one: the config unties it, and names a class that has one by a name that is known.
    static func isLacking(_ config: JSONText) -> Bool { isTied(config) == false && hasCausalClass(config) }

    private static func hasCausalClass(_ config: JSONText) -> Bool {
        config.strings(["architectures"]).contains { $0.hasSuffix(classes[0]) }
    }

    private static func isTied(_ config: JSONText) -> Bool? { config.flag([key]) ?? config.flag(["text_config", key]) }

    private static func hasHeadClass(_ config: JSONText) -> Bool {
        config.strings(["architectures"]).contains { name in classes.contains { name.hasSuffix($0) } }
    }

    private static func headName(for embedding: String) -> String? {
        if embedding.hasSuffix("embed_in.weight") { return "embed_out.weight" }
        // A masked language model's head is a module of several layers.
        if embedding.hasSuffix("embeddings.word_embeddings.weight") { return nil }
        return embedding.hasPrefix("language_model.model.") ? "language_model.lm_head.weight" : "lm_head.weight"
    }
}
