/// What a tensor's name says about its place in the model, for any architecture that numbers its layers.
package struct TensorName: Sendable, Hashable {
    package struct Layer: Sendable, Hashable {
        /// The text before the number: `model.layers`.
        package let prefix: String
        package let index: Int
    }

    private let text: String

    package init(_ text: String) { self.text = text }

    /// The layer, taken from the first numeric component of the name.
    package var layer: Layer? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard let position = parts.firstIndex(where: { $0.utf8.allSatisfy { (48...57).contains($0) } && Int($0) != nil }),
            position > 0, position < parts.count - 1, let index = Int(parts[position])
        else { return nil }
        return Layer(prefix: parts[..<position].joined(separator: "."), index: index)
    }

    /// Whether a tensor outside the layers is used before them, like embeddings. Heads and final norms are used after them.
    package var standsBeforeLayers: Bool {
        guard !text.contains("embed_out") else { return false }
        return ["embed", "wte", "wpe", "word_emb", "tok_emb"].contains { text.contains($0) }
    }

    /// Whether this is an output head, which may be missing if it is tied to the embedding.
    package var isHead: Bool { ["lm_head.weight", "embed_out.weight"].contains { text == $0 || text.hasSuffix(".\($0)") } }

    /// Whether this is a token embedding, which a tied head shares.
    package var isTokenEmbedding: Bool {
        ["embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"].contains {
            text == $0 || text.hasSuffix(".\($0)")
        }
    }

    /// Whether the first dimension is the vocabulary: embeddings, heads and head biases.
    package var hasVocabularyAxis: Bool {
        isTokenEmbedding || isHead
            || ["lm_head.bias", "embed_out.bias", "shared.weight"].contains { text == $0 || text.hasSuffix(".\($0)") }
    }

    /// Whether models of one architecture may lack this tensor: biases and computable buffers.
    package var isOptional: Bool {
        [".bias", ".inv_freq", ".masked_bias", ".position_ids", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"].contains {
            text.hasSuffix($0)
        }
    }
}
