import Checkpoints
import Core
import Recipes
import Tokenizers
import Work

/// The files beside the weights: from the primary (the base, else the first model), and about the merge.
struct Sidecars {
    let recipe: Recipe
    let inputs: InputSet
    let roots: Roots
    let layout: CheckpointLayout
    /// Where the recipe chooses the output's vocabulary.
    let vocabulary: VocabularyPlan?
    /// The type of the output's floating tensors, if they share one.
    let dtype: DType?
    /// As `OutputTensorList` says.
    let layerOrigins: [ExactText: [OutputTensorList.LayerOrigin]]
    /// Whether the recipe is written under mergekit's name too.
    let writesMergekitConfig: Bool

    private var primary: Checkpoint { inputs.primary.checkpoint }

    /// Copied even from beside a lone file of weights, and before any other.
    private static let firstNames = [
        "generation_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    ]

    /// - Returns: the files without those of `about`, those of the primary that are left out, and what the user should know of
    ///   them.
    /// - Throws: `notAllowed` for a file that is a link to somewhere outside the roots, `badData` for one that cannot be changed
    ///   as it must.
    func make() throws(TesseraError) -> (files: [SidecarFile], leftOut: [LeftOutFile], remarks: [String]) {
        let (config, configRemarks) = OutputConfig(
            inputs: inputs, vocabulary: vocabulary, dtype: dtype, layerOrigins: layerOrigins,
            hasHead: layout.parts.contains { $0.tensors.contains { TensorName($0.name).isHead } }
        ).make()
        var files = config.map { [SidecarFile(name: Checkpoint.configName, bytes: $0)] } ?? []
        let own = try ModelSidecars(of: inputs.primary, in: roots.files)
        var copied: [String] = []
        for name in Self.firstNames where try roots.files.exists("\(primary.directory)/\(name)") { copied.append(name) }
        copied += own.copied.filter { !Self.firstNames.contains($0) }
        files += copied.map { SidecarFile(name: $0, copyOf: "\(primary.directory)/\($0)") }
        let tokenizer = try tokenizerFiles()
        files += tokenizer.files
        for file in files {
            if let source = file.copiedFrom { _ = try roots.relativePath(of: source, workingDirectory: nil) }
        }
        if let index = layout.index { files.append(SidecarFile(name: Checkpoint.indexName, bytes: index)) }
        return (files, own.leftOut, configRemarks + own.remarks + tokenizer.remarks)
    }

    /// What says how a recipe made the output: this one, or another that differs in parameters alone.
    func about(_ recipe: Recipe) -> [SidecarFile] {
        let card = ModelCard(recipe: recipe, repositories: inputs.inputs.compactMap(\.repository))
        let text = Array(recipe.text.utf8)
        return [
            SidecarFile(name: "recipe.yml", bytes: text), SidecarFile(name: "README.md", bytes: Array(card.text.utf8)),
        ] + (writesMergekitConfig ? [SidecarFile(name: "mergekit_config.yml", bytes: text)] : [])
    }

    private func tokenizerFiles() throws(TesseraError) -> (files: [SidecarFile], remarks: [String]) {
        var template: String?
        if let setting = recipe.chatTemplate {
            template = try ChatTemplates.template(
                setting.value, directories: inputs.inputs.map(\.tokenizerDirectory), in: roots.files)
        }
        let directory = vocabulary.map(\.primaryDirectory).flatMap { $0.isEmpty ? nil : $0 } ?? inputs.primary.tokenizerDirectory
        // A lone file of weights lies among files of any kind.
        let isModel = primary.config != nil || directory != primary.directory
        let others = isModel ? try roots.files.list(directory).filter { ModelFiles.kind(of: $0) == .tokenizer } : []
        return try TokenizerFiles(
            directory: directory, others: others, changes: vocabulary?.changes ?? TokenizerChanges(), template: template,
            in: roots.files
        ).make()
    }
}

/// `README.md` of an output, with the front matter that the hub reads.
struct ModelCard {
    let recipe: Recipe
    /// The models that are repositories of the hub.
    let repositories: [String]

    var text: String {
        let models = recipe.models.map { "\($0)" }
        let base = recipe.baseModel.map { "\($0.value)" }
        let library = recipe.output?.value == .adapter ? "peft" : "transformers"
        return """
            ---
            \(repositories.isEmpty ? "" : "base_model:\n" + repositories.map { "- \($0)\n" }.joined())library_name: \(library)
            tags:
            - merge
            - tessera
            ---
            # \(recipe.method.value) merge of \(models.count) \(models.count == 1 ? "model" : "models")

            Merged with Tessera by the method `\(recipe.method.value)`\(base.map { ", on the base \($0.inlineCode)" } ?? "").

            \(models.map { "- \($0.inlineCode)" }.joined(separator: "\n"))

            `tessera.manifest.json` holds the digest of every tensor; `tessera verify` checks them.

            ```yaml
            \(recipe.text.hasSuffix("\n") ? String(recipe.text.dropLast()) : recipe.text)
            ```

            """
    }
}

extension String {
    /// The text for a model card, without what would end the line or begin code.
    var words: String { printable.replacing("`", with: "'") }

    /// The text as code within a line of a model card.
    var inlineCode: String { "`\(words)`" }
}
