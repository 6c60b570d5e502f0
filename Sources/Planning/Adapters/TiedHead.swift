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
        let isTied = config.flag([Self.key]) ?? config.flag(["text_config", Self.key])
        // A class with a head whose checkpoint has none ties it, whatever its default is called.
        let hasHead = config.strings(["architectures"]).contains { name in Self.classes.contains { name.hasSuffix($0) } }
        guard isTied ?? hasHead else { return nil }
        self.embedding = embedding
        name = Self.headName(for: embedding)
    }

    private static func headName(for embedding: String) -> String? {
        if embedding.hasSuffix("embed_in.weight") { return "embed_out.weight" }
        // A masked language model's head is a module of several layers.
        if embedding.hasSuffix("embeddings.word_embeddings.weight") { return nil }
        return embedding.hasPrefix("language_model.model.") ? "language_model.lm_head.weight" : "lm_head.weight"
    }
}
