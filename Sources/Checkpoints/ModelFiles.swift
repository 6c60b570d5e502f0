import Core

/// Which files of a model's directory belong to what is merged from it. The one rule for all of them: it goes by names, and knows
/// no architecture.
package enum ModelFiles {
    package enum Kind: Sendable, Hashable {
        /// Made anew for every output, or not of a model at all: no reader asks for it here.
        case ownToEachModel
        /// Of the tokenizer: it goes with the output's vocabulary.
        case tokenizer
        /// Copied as it is: generation config, processors, prompts, settings of a library.
        case sidecar
        /// Python that configs may name.
        case code
        /// Left out, with the reason.
        case foreign(String)
    }

    private static let madeAnew: Set = [
        Checkpoint.configName, Checkpoint.indexName, "README.md", "recipe.yml", "mergekit_config.yml", ".gitattributes",
        ".gitignore", ".DS_Store",
    ]
    private static let weightEndings: Set = [
        "safetensors", "bin", "pt", "pth", "ckpt", "h5", "msgpack", "gguf", "onnx", "npz", "ot", "tflite", "pdparams", "pkl",
    ]
    private static let training = [
        "trainer_state", "training_args", "optimizer", "scheduler", "rng_state", "all_results", "train_results", "eval_results",
        "adapter_config", "events.out",
    ]
    private static let quantization = ["quantize_config", "quant_config", "hf_quant_config"]
    private static let tokenizerEndings: Set = ["model", "spm", "tiktoken", "bpe", "vocab", "codes"]
    private static let tokenizerWords = [
        "token", "vocab", "merges", "spiece", "sentencepiece", "bpe", "spm", "tekken", "dict", "emoji",
        "chat_template", "unigram",
    ]
    private static let documents: Set = ["md", "pdf", "png", "jpg", "jpeg", "gif", "svg", "ipynb", "log", "csv", "html", "wav"]

    package static func kind(of name: String) -> Kind {
        let lower = name.lowercased(), parts = lower.split(separator: ".").map(String.init), ending = parts.last ?? ""
        if madeAnew.contains(name) || name.hasPrefix("tessera.") || name == SHA256Sums.fileName { return .ownToEachModel }
        if ["incomplete", "part", "aria2", "lock"].contains(ending) { return .foreign("an unfinished download") }
        if training.contains(where: { lower.hasPrefix($0) }) { return .foreign("of a training run") }
        if quantization.contains(where: { lower.hasPrefix($0) }) { return .foreign("of quantized weights") }
        if weightEndings.contains(ending) || lower.hasSuffix(".index.json") { return .foreign("weights") }
        if ending == "py" { return .code }
        // `tokenizer.model.v3` ends with a version.
        if parts.dropFirst().contains(where: tokenizerEndings.contains) { return .tokenizer }
        let isTold = tokenizerWords.contains { lower.contains($0) }
        switch ending {
        case "json", "jinja", "yaml", "yml", "toml": return isTold ? .tokenizer : .sidecar
        case "txt" where isTold: return .tokenizer
        default: return .foreign(documents.contains(ending) ? "about its own model" : "not known to belong to a model")
        }
    }
}
