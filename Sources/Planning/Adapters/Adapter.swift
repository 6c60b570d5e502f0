import Checkpoints
import Core
import Tokenizers

/// An adapter as PEFT saves it: `adapter_config.json` beside `adapter_model.safetensors`, and perhaps a tokenizer.
///
/// It is folded into its model as PEFT's `merge_and_unload` does it, but computed in float32 and rounded once.
struct Adapter {
    static let weightsStem = "adapter_model"
    static let weightsName = "\(weightsStem).safetensors"
    private static let pickleName = "adapter_model.bin"

    let directory: String
    let header: SafetensorsHeader
    /// By the name of the model's tensor, in the order in which they are made.
    let changes: [ExactText: [AdapterChange]]
    /// A head that the model ties to its embedding and the adapter does not.
    let untiedHead: UntiedHead?
    /// The number of rows of embedding and head, where the adapter changes it.
    let rowCount: Int?
    /// Whether the adapter has a tokenizer of its own.
    let hasTokenizer: Bool

    struct UntiedHead {
        let name: String
        /// The model's tensor that the head was.
        let embedding: String
        let changes: [AdapterChange]
    }

    /// - Parameter model: what it changes.
    /// - Throws: `badData` for an adapter that cannot be folded, or that does not belong to such a model; `inputMissing` when a
    ///   file is not there.
    init(directory: String, of model: Checkpoint, in files: any InputFiles) throws(TesseraError) {
        self.directory = directory
        let config = try AdapterConfig(directory: directory, in: files)
        let path = "\(directory)/\(Self.weightsName)"
        if try !files.exists(path), try files.exists("\(directory)/\(Self.pickleName)") {
            throw TesseraError(
                .badData, "is a pickle file, which can run code; only safetensors is read",
                file: "\(directory)/\(Self.pickleName)",
                advice: "load the adapter with PEFT and call save_pretrained(…, safe_serialization=True)")
        }
        header = try SafetensorsHeader.read(path: path, in: files)
        var matcher = try AdapterMatcher(config: config, model: model, tensors: header.tensors, file: path)
        try matcher.match()
        changes = matcher.changes
        untiedHead = matcher.untiedHead
        rowCount = try matcher.rowCount()
        var hasTokenizer = false
        // A vocabulary alone is not what transformers saves: the other files would be missing.
        if try files.exists("\(directory)/\(Tokenizer.configName)") {
            for name in [Tokenizer.fastName, "tokenizer.model", "vocab.json", "vocab.txt"] {
                if try files.exists("\(directory)/\(name)") { hasTokenizer = true }
            }
        }
        self.hasTokenizer = hasTokenizer
    }
}
