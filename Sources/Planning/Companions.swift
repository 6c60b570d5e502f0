import Checkpoints
import Recipes

/// The files beside the weights: from the donor (the base, else the first model), and about the merge.
struct Companions {
    let recipe: Recipe
    let donor: Checkpoint
    let roots: Roots
    let layout: CheckpointLayout
    /// The type of the output's floating tensors, if they share one.
    let dtype: DType?
    /// Where the recipe chose the layers: how many the output has, by the text before their number.
    let layerCounts: [String: Int]

    /// What is copied as it is, when the donor has it.
    private static let copiedNames = [
        "generation_config.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "special_tokens_map.json",
        "added_tokens.json", "merges.txt", "vocab.json", "vocab.txt", "chat_template.jinja", "chat_template.json",
        "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    ]

    /// - Throws: `notAllowed` for a file that is a link to somewhere outside the roots.
    func files() throws(TesseraError) -> [CompanionFile] {
        var files: [CompanionFile] = []
        if let config = config() { files.append(CompanionFile(name: Checkpoint.configName, bytes: config)) }
        for name in Self.copiedNames where fileExists("\(donor.directory)/\(name)") {
            let path = "\(donor.directory)/\(name)"
            _ = try roots.relativePath(of: path, workingDirectory: nil)
            files.append(CompanionFile(name: name, copyOf: path))
        }
        if let index = layout.index { files.append(CompanionFile(name: Checkpoint.indexName, bytes: index)) }
        files.append(CompanionFile(name: "recipe.yml", bytes: Array(recipe.text.utf8)))
        files.append(CompanionFile(name: "README.md", bytes: Array(ModelCard(recipe: recipe).text.utf8)))
        return files
    }

    /// What configs call the number of layers; a model of several parts has it in the part's own section.
    private static let layerCountKeys = ["num_hidden_layers", "n_layer", "n_layers", "num_layers"]

    /// The donor's config with the output's dtype, under whichever of its two names the config uses, and the output's number of layers.
    private func config() -> [UInt8]? {
        guard var config = donor.config else { return nil }
        if let name = dtype.flatMap({ dtype in Recipe.name(of: dtype) }) {
            let keys = ["dtype", "torch_dtype"].filter { config.has([$0]) }
            for key in keys.isEmpty ? ["torch_dtype"] : keys { config.set(key, to: name) }
        }
        if let count = layerCounts.values.first, layerCounts.count == 1 {
            let paths = Self.layerCountKeys.flatMap { [[$0], ["text_config", $0]] }
            for path in paths where config.integer(path) != nil { config.replace(path, with: count) }
        }
        return config.bytes
    }
}

/// `README.md` of an output, with the front matter that the hub reads.
struct ModelCard {
    let recipe: Recipe

    var text: String {
        let models = recipe.models.map { "\($0)" }
        let base = recipe.baseModel.map { "\($0.value)" }
        return """
            ---
            library_name: transformers
            tags:
            - merge
            - tessera
            ---
            # \(recipe.method.value) merge of \(models.count) \(models.count == 1 ? "model" : "models")

            Merged with Tessera by the method `\(recipe.method.value)`\(base.map { ", on the base `\($0)`" } ?? "").

            \(models.map { "- `\($0)`" }.joined(separator: "\n"))

            `tessera.manifest.json` holds the digest of every tensor; `tessera verify` checks them.

            ```yaml
            \(recipe.text.hasSuffix("\n") ? String(recipe.text.dropLast()) : recipe.text)
            ```

            """
    }
}
