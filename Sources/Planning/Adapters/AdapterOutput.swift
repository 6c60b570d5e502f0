import Checkpoints
import Core
import Operators
import Recipes
import Work

/// The adapter that a merge of adapters makes in place of a checkpoint, as PEFT saves it.
///
/// Every matrix that one of the adapters changes gets factors whose rank is the sum of the adapters' ranks for this matrix.
/// Everything else is the base's.
struct AdapterOutput {
    private let line: Int
    private let recipe: Recipe
    private let method: any MergeMethod.Type
    private let inputs: InputSet

    /// - Returns: `nil` for a recipe that makes a checkpoint.
    init?(recipe: Recipe, method: any MergeMethod.Type, inputs: InputSet) {
        guard let output = recipe.output, output.value == .adapter else { return nil }
        line = output.line
        self.recipe = recipe
        self.method = method
        self.inputs = inputs
    }

    // MARK: What cannot be an adapter

    func problems() -> [TesseraError] {
        var problems: [TesseraError] = []
        func complain(_ problem: String, at line: Int? = nil, file: String? = nil, tensor: String? = nil, _ advice: String) {
            problems.append(
                TesseraError(
                    .badData, problem, file: file ?? recipe.file, line: line, tensor: tensor, advice: advice))
        }
        if !(method is any FactoredMethod.Type) {
            let able = MergeMethods.all.filter { $0 is any FactoredMethod.Type }.map { $0.name }
            complain(
                "'output: adapter' needs an update that is a product of factors, which '\(method.name)' does not find", at: line,
                "use one of \(able.joined(separator: ", ")), or write a checkpoint")
        }
        let isWhole = recipe.modules.allSatisfy { if case .models = $0.body { $0.name == nil } else { false } }
        if !isWhole || recipe.tokenizer != nil || recipe.chatTemplate != nil {
            complain(
                "'output: adapter' changes matrices of the base, not its layers, its vocabulary or its chat template", at: line,
                "remove 'slices', 'modules', 'tokenizer', 'tokenizer_source' and 'chat_template', or write a checkpoint")
        }
        let base = inputs.primary
        if base.adapter != nil || base.task != nil {
            complain(
                "'output: adapter' needs a base that is a checkpoint, and '\(base.reference)' is made while it is read", at: line,
                "write the base as a checkpoint first, by 'passthrough'")
        }
        for (index, input) in inputs.inputs.enumerated() where index != inputs.base {
            guard let adapter = input.adapter, input.checkpoint.directory == base.checkpoint.directory else {
                complain(
                    "'output: adapter' merges adapters of the base, and '\(input.reference)' is none", at: line,
                    "name adapters of '\(base.reference)', or write a checkpoint")
                continue
            }
            // One for each adapter.
            guard let (name, _) = adapter.changes.sorted(by: { $0.key < $1.key }).first(where: { factors($0.value) == nil })
            else {
                if adapter.untiedHead != nil {
                    complain(
                        "trains a head that the base ties to its embedding, which no factors say",
                        file: "\(adapter.directory)/\(Adapter.weightsName)", "write a checkpoint")
                }
                continue
            }
            complain(
                "changes the tensor by more than two factors of one linear layer or embedding (DoRA, biases, whole modules, "
                    + "rows, experts, convolutions), which 'output: adapter' cannot merge",
                file: "\(adapter.directory)/\(Adapter.weightsName)", tensor: "\(name)", "write a checkpoint")
        }
        return problems
    }

    /// A change that is the product of two factors of one matrix.
    private struct Factors {
        let key: AdapterKey
        let rank: Int
        let isTransposed: Bool
        let types: [DType]
    }

    /// - Returns: `nil` for any other change.
    private func factors(_ changes: [AdapterChange]) -> Factors? {
        guard changes.count == 1, case .lowRank(let a?, let b, let rank, _, let isTransposed, nil) = changes[0],
            a.shape.count == 2, b.shape.count == 2, let key = AdapterKey(a.name), key.place.depth == 0
        else { return nil }
        return Factors(key: key, rank: rank, isTransposed: isTransposed, types: [a.dtype, b.dtype])
    }

    // MARK: Tensors

    /// The factors that an input has for a tensor.
    private func factors(of name: String, in model: Int) -> Factors? {
        let input = inputs.inputs[model]
        return input.adapter?.changes[ExactText(input.names.own(name))].flatMap { factors($0) }
    }

    /// Whether one of the adapters changes the tensor.
    func has(_ spec: OutputTensorSpec) -> Bool { spec.sources.contains { factors(of: $0.name, in: $0.model) != nil } }

    /// The tensors with factors as their outputs.
    ///
    /// - Throws: `Problems` where the adapters do not mean the same module by a tensor.
    func factored(_ tensors: [PlannedTensor]) throws -> [PlannedTensor] {
        var problems = ProblemList(file: recipe.file), modules: [String: String] = [:]
        let factored = try tensors.map { tensor in
            let found = tensor.models.compactMap { factors(of: tensor.name, in: $0) }
            guard let first = found.first else { return tensor }
            let module = first.key.place.module
            let other = found.first { $0.key.place.module != module || $0.isTransposed != first.isTransposed }
            if other != nil || modules.updateValue(tensor.name, forKey: module) != nil {
                problems.add([
                    TesseraError(
                        .badData,
                        "belongs to the module '\(other?.key.place.module ?? module)' of an adapter, which is more than that",
                        file: recipe.file, tensor: tensor.name,
                        advice: "merge adapters that name modules as the checkpoint does, or write a checkpoint")
                ])
            }
            var tensor = tensor
            let isEmbedding = first.key.role == .embeddingA
            let types = Set(found.flatMap(\.types)), dtype = recipe.outDtype ?? recipe.dtype ?? .narrowest(holding: types)
            let shape = FactorShape(rank: found.reduce(0) { $0 + $1.rank }, isTransposed: first.isTransposed)
            tensor.factors = shape
            tensor.module = module
            tensor.codec = .rounding(to: dtype)
            tensor.outputs = try shape.outputs(
                of: tensor.shape, dtype: dtype,
                suffixes: isEmbedding ? (".lora_embedding_A", ".lora_embedding_B") : (".lora_A.weight", ".lora_B.weight"))
            return tensor
        }
        try problems.throwIfAny()
        guard !factored.isEmpty else {
            throw Problems([
                TesseraError(
                    .badData, "the adapters change nothing that could be merged", file: recipe.file, line: line,
                    advice: "name adapters with factors, or write a checkpoint")
            ])
        }
        return factored
    }

    // MARK: Config

    /// `adapter_config.json`: that of the first adapter, with what the merge changes. The scale of every module is 1.
    ///
    /// - Throws: what reading the file throws.
    func config(_ tensors: [PlannedTensor], in files: any InputFiles) throws(TesseraError) -> SidecarFile {
        let adapters = inputs.inputs.compactMap(\.adapter)
        var configs: [JSONText] = []
        for adapter in adapters {
            let path = "\(adapter.directory)/\(AdapterConfig.fileName)"
            configs.append(try JSONText(try files.read(path, maxBytes: AdapterConfig.byteLimit), file: path))
        }
        guard var config = configs.first else {
            throw TesseraError(.internal, "a merge of adapters without adapters", file: recipe.file)
        }
        let modules = tensors.compactMap { tensor in
            tensor.factors.flatMap { factors in tensor.module.map { (path: $0, rank: factors.rank) } }
        }.sorted { $0.path.precedesInBytes($1.path) }
        // Most modules have the rank that the config gives to all.
        let counts = modules.reduce(into: [Int: Int]()) { $0[$1.rank, default: 0] += 1 }
        let rank = counts.max { ($0.value, $0.key) < ($1.value, $1.key) }?.key ?? 1
        let others = modules.filter { $0.rank != rank }.map { "\(JSONText.quoted($0.path)): \($0.rank)" }
        let pattern = "{\(others.joined(separator: ", "))}"
        let names = Set(configs.map { $0.string([Self.baseKey]) })
        if names.count > 1 || names.contains(nil) { config.set(Self.baseKey, to: "\(inputs.primary.reference)") }
        config.set("peft_type", to: "LORA")
        config.set("r", to: rank)
        config.set("lora_alpha", to: rank)
        config.set("rank_pattern", toJSON: pattern)
        config.set("alpha_pattern", toJSON: pattern)
        config.set("target_modules", toJSON: "[\(modules.map { JSONText.quoted($0.path) }.joined(separator: ", "))]")
        config.set("fan_in_fan_out", toJSON: "\(tensors.contains { $0.factors?.isTransposed == true && !$0.isEmbedding })")
        for (key, value) in Self.plain where config.has([key]) { config.set(key, toJSON: value) }
        return SidecarFile(name: AdapterConfig.fileName, bytes: config.bytes)
    }

    private static let baseKey = "base_model_name_or_path"

    /// What says in a config that an adapter is more than factors, or how its factors came about.
    private static let plain = [
        ("use_rslora", "false"), ("use_dora", "false"), ("init_lora_weights", "true"), ("modules_to_save", "null"),
        ("layers_to_transform", "null"), ("layers_pattern", "null"), ("exclude_modules", "null"), ("target_parameters", "null"),
        ("trainable_token_indices", "null"), ("bias", "\"none\""), ("lora_bias", "false"), ("loftq_config", "{}"),
        ("eva_config", "null"), ("corda_config", "null"), ("ensure_weight_tying", "false"), ("inference_mode", "true"),
    ]

    func remark(_ tensors: [PlannedTensor]) -> String {
        let ranks = tensors.compactMap { $0.factors?.rank }
        return "writes an adapter of '\(inputs.primary.reference)' with \(tensors.count) modules of rank \(ranks.min() ?? 0)"
            + (ranks.min() == ranks.max() ? "" : " to \(ranks.max() ?? 0)")
    }
}

extension PlannedTensor {
    /// Whether its factors are those of an embedding, which PEFT always stores transposed.
    fileprivate var isEmbedding: Bool { outputs.first?.suffix.contains("embedding") == true }
}
