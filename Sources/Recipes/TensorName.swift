package import Core

/// What a tensor's name says about its place in the model, for any architecture that numbers its layers.
package struct TensorName: Sendable, Hashable {
    package struct Layer: Sendable, Hashable {
        /// The text before the number: `model.layers`.
        package let prefix: ExactText
        package let index: Int
    }

    private let text: String

    package init(_ text: String) { self.text = text }

    /// Layers are numbered below this; a larger number in a name is no layer's.
    private static let layerLimit = 1_000_000

    /// The layer, taken from the first numeric component of the name.
    package var layer: Layer? {
        let bytes = text.utf8
        var start = bytes.startIndex
        while start < bytes.endIndex {
            var end = start, number: Int? = 0
            while end < bytes.endIndex, bytes[end] != UInt8(ascii: ".") {
                let digit = Int(bytes[end]) - 48
                number = (0...9).contains(digit) ? number.map { min($0 * 10 + digit, Self.layerLimit) } : nil
                bytes.formIndex(after: &end)
            }
            if let number, number < Self.layerLimit, end > start {
                guard start > bytes.startIndex, end < bytes.endIndex else { return nil }
                return Layer(prefix: ExactText(String(text[..<bytes.index(before: start)])), index: number)
            }
            guard end < bytes.endIndex else { return nil }
            start = bytes.index(after: end)
        }
        return nil
    }

    /// Whether a tensor outside the layers is used before them, like embeddings. Heads and final norms are used after them.
    package var standsBeforeLayers: Bool {
        guard !text.holds("embed_out") else { return false }
        return Self.beforeLayers.contains { text.holds($0) }
    }

    private static let beforeLayers = [
        "embed", "wte", "wpe", "word_emb", "tok_emb", "feature_extractor", "feature_projection",
    ]

    /// Whether this is an output head, which may be missing if it is tied to the embedding.
    package var isHead: Bool { isOne(of: Self.heads) }
    private static let heads = ["lm_head.weight", "embed_out.weight"]

    /// Whether this is a token embedding, which a tied head shares.
    package var isTokenEmbedding: Bool { isOne(of: Self.embeddings) }
    private static let embeddings = ["embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"]

    /// Whether the first dimension is the vocabulary: embeddings, heads and head biases.
    package var hasVocabularyAxis: Bool {
        isTokenEmbedding || isHead || isOne(of: Self.otherVocabularyTensors)
    }
    private static let otherVocabularyTensors = ["lm_head.bias", "embed_out.bias", "shared.weight"]

    /// Whether models of one architecture may lack this tensor: biases and computable buffers.
    package var isOptional: Bool {
        Self.optionalEnds.contains { text.hasSuffix($0) }
    }
    private static let optionalEnds = [
        ".bias", ".inv_freq", ".masked_bias", ".position_ids", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached",
    ]

    /// Whether this is the number of batches that a norm has seen in training.
    package var countsBatches: Bool { text.hasSuffix(".num_batches_tracked") }

    /// Whether the name is one of these, or ends with it behind a dot.
    private func isOne(of names: [String]) -> Bool {
        names.contains { name in
            text.hasSuffix(name)
                && (text.utf8.count == name.utf8.count
                    || text.utf8[text.utf8.index(text.endIndex, offsetBy: -name.utf8.count - 1)] == UInt8(ascii: "."))
        }
    }
}
