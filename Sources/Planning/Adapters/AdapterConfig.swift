import Core
import Operators

/// What `adapter_config.json` says of how an adapter is folded.
///
/// The adapter's tensors say the rest: which modules it changes, the rank of each, and which of them have magnitudes (DoRA) or
/// biases. `r`, `rank_pattern`, `target_modules`, `layers_pattern` and the like say how the tensors came about.
struct AdapterConfig {
    static let fileName = "adapter_config.json"
    static let byteLimit = 16 << 20
    /// PEFT's, where a config does not have the key.
    private static let defaultAlpha = 8.0

    private let alpha: Double
    /// The scale of modules with a name of their own, in the order of the file: the first that fits holds.
    private let alphaPatterns: [(pattern: ModulePattern, alpha: Double)]
    private let isRankStabilised: Bool
    /// Whether matrices are stored transposed, as GPT-2's are, where their shapes do not show it.
    let isTransposed: Bool
    /// Whether the config announces magnitudes.
    let usesDoRA: Bool
    /// What PEFT takes from the model's matrices, when it loads the adapter, for the first factors.
    let initialPart: InitialPart?
    /// Ends of the paths of modules that were trained whole, each a copy of the model's own.
    let savedModules: [String]
    /// Whether a tied head follows an embedding that was trained whole.
    let keepsTies: Bool
    /// Ends of the paths of parameters that have factors of their own, such as `mlp.experts.down_proj`.
    let parameters: [String]
    /// For each end of a module's path, the tokens whose rows were trained; `nil` stands for any module.
    private let tokens: [(module: String?, indices: [Int])]

    /// - Throws: `badData` for an adapter that cannot be folded into a copy of its model, naming its kind.
    init(directory: String, in files: any InputFiles) throws(TesseraError) {
        let path = "\(directory)/\(Self.fileName)"
        let json = try JSONText(try files.read(path, maxBytes: Self.byteLimit), file: path)
        try AdapterKind.check(json, file: path)
        initialPart = InitialPart(json.string(["init_lora_weights"]))
        func number(_ text: String, _ key: String) throws(TesseraError) -> Double {
            guard let number = Double(text), number.isFinite else {
                throw TesseraError(.badData, "'\(key)' is \(text), not a number", file: path)
            }
            return number
        }
        alpha =
            try json.json(["lora_alpha"]).map { text throws(TesseraError) in try number(text, "lora_alpha") }
            ?? Self.defaultAlpha
        var patterns: [(pattern: ModulePattern, alpha: Double)] = []
        for (pattern, text) in try json.members(["alpha_pattern"]) {
            do throws(PatternProblem) {
                patterns.append((try ModulePattern(pattern), 0))
            } catch {
                throw TesseraError(
                    .badData, "'\(pattern)' in 'alpha_pattern' is a regular expression that \(error.text)", file: path,
                    advice: "write the path of the module, or its end")
            }
            patterns[patterns.count - 1].alpha = try number(text, "alpha_pattern")
        }
        alphaPatterns = patterns
        isRankStabilised = json.flag(["use_rslora"]) == true
        isTransposed = json.flag(["fan_in_fan_out"]) == true
        usesDoRA = json.flag(["use_dora"]) == true
        savedModules = json.strings(["modules_to_save"])
        keepsTies = json.flag(["ensure_weight_tying"]) == true
        parameters = json.strings(["target_parameters"])
        var tokens: [(module: String?, indices: [Int])] = []
        for key in ["trainable_token_indices", "token_indices"] {
            if let list = json.elements([key]) { tokens.append((nil, try Self.indices(list, key, file: path))) }
            for (module, text) in (try? json.members([key])) ?? [] {
                tokens.append((module, try Self.indices(JSONText.elements(of: text) ?? [], key, file: path)))
            }
        }
        self.tokens = tokens
    }

    private static func indices(_ list: [String], _ key: String, file: String) throws(TesseraError) -> [Int] {
        let indices = list.compactMap { Int($0) }
        guard indices.count == list.count, indices.allSatisfy({ (0...Int(Int32.max)).contains($0) }),
            Set(indices).count == indices.count
        else { throw TesseraError(.badData, "'\(key)' does not list tokens by number, each once", file: file) }
        return indices
    }

    /// `s` in `W + s·B·A`: `alpha / r`, or `alpha / √r` for rank-stabilised LoRA (arXiv 2312.03732).
    ///
    /// - Parameter module: the path of the module, or of the parameter.
    /// - Throws: what `Effort.spend()` throws.
    func scale(of module: String, rank: Int) throws(TesseraError) -> Double {
        // Each of thousands of modules may be looked for in thousands of patterns.
        try Effort.spend()
        let alpha = alphaPatterns.first { $0.pattern.matches(module) }?.alpha ?? self.alpha
        return alpha / (isRankStabilised ? Double(rank).squareRoot() : Double(rank))
    }

    /// Whether the module was trained whole, as a copy of the model's own.
    func isSaved(_ module: String) -> Bool { savedModules.contains { module.hasSuffix($0) } }

    /// The tokens whose rows of the module were trained.
    func tokenIndices(of module: String) -> [Int]? {
        tokens.first { $0.module.map { module == $0 || module.hasSuffix(".\($0)") } ?? true }?.indices
    }
}

/// The part of a matrix that the first factors of an adapter held, where PEFT finds it again (`ResidualMatrix`).
struct InitialPart {
    let part: ResidualMatrix.Part
    /// What people call such an adapter.
    let name: String

    /// - Parameter initialisation: `init_lora_weights`, if it is a text.
    /// - Returns: `nil` where the model's own weights stay as they are, as for EVA, orthogonal and Gaussian factors.
    init?(_ initialisation: String?) {
        switch (initialisation, initialisation?.lowercased()) {
        case ("pissa", _): self.init(part: .principal, name: "PiSSA")
        case (_, "olora"): self.init(part: .leadingColumns, name: "OLoRA")
        default: return nil
        }
    }

    private init(part: ResidualMatrix.Part, name: String) {
        self.part = part
        self.name = name
    }
}

/// Which kinds of adapters can be folded.
private enum AdapterKind {
    /// `peft_type` of other adapters whose update could be folded, and what people call them.
    private static let others = [
        "ADALORA": "AdaLoRA", "BOFT": "BOFT", "C3A": "C3A", "FOURIERFT": "FourierFT", "HRA": "HRA", "IA3": "(IA)³",
        "LN_TUNING": "LN tuning",
        "LOHA": "LoHa", "LOKR": "LoKr", "OFT": "OFT", "RANDLORA": "RandLoRA", "SHIRA": "SHiRA", "VBLORA": "VB-LoRA",
        "VERA": "VeRA", "XLORA": "X-LoRA",
    ]
    /// Those that change what the model reads, not its weights.
    private static let prompts = [
        "ADAPTION_PROMPT": "LLaMA-Adapter", "CPT": "CPT", "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
        "P_TUNING": "P-tuning", "PREFIX_TUNING": "prefix tuning", "PROMPT_TUNING": "prompt tuning",
    ]
    /// Variants of LoRA whose update is not that of two factors, by the key of the config that chooses them.
    private static let variants = [
        ("alora_invocation_tokens", "aLoRA", "it works only behind its invocation tokens; serve it as an adapter"),
        ("arrow_config", "Arrow", "it routes between adapters; fold one of these"),
        ("use_qalora", "QALoRA", "its factors belong to a quantized model; serve it with that model"),
        ("use_bdlora", "BD-LoRA", "merge it into its model with PEFT's merge_and_unload(), and name the result as a model"),
        ("kasa_config", "KaSA", "merge it into its model with PEFT's merge_and_unload(), and name the result as a model"),
        ("layer_replication", "layer-replicating", "stack the layers with 'slices' first, and train or fold on the result"),
    ]
    /// Initialisations that change the model's own weights in a way that nobody can make again from the adapter.
    private static let initialisations = [
        ("pissa_niter_", "PiSSA", "was found with random numbers"), ("corda", "CorDA", "depends on data"),
        ("lora_ga", "LoRA-GA", "depends on gradients"), ("loftq", "LoftQ", "depends on how the model was quantized"),
    ]

    /// - Throws: `badData` naming a kind that cannot be folded, and the way out.
    static func check(_ json: JSONText, file: String) throws(TesseraError) {
        func refuse(_ name: String, _ advice: String) -> TesseraError {
            TesseraError(
                .badData, "is \(article(name)) \(name) adapter, which cannot be folded into a model here", file: file,
                advice: advice)
        }
        let type = (json.string(["peft_type"]) ?? "LORA").uppercased()
        if let name = prompts[type] {
            throw refuse(name, "it changes no weights, so that there is nothing to fold; serve it as an adapter")
        }
        guard ["LORA", "TRAINABLE_TOKENS"].contains(type) else {
            throw refuse(
                others[type] ?? type, "merge it into its model with PEFT's merge_and_unload(), and name the result as a model")
        }
        for (key, name, advice) in variants {
            // PEFT writes a choice that was not made as null, false or nothing.
            guard let value = json.json([key]), !["null", "false", "[]", "{}"].contains(value) else { continue }
            throw refuse(name, advice)
        }
        guard let initialisation = json.string(["init_lora_weights"])?.lowercased() else { return }
        for (start, name, reason) in initialisations where initialisation.hasPrefix(start) {
            // PEFT converts all of these but LoftQ's.
            let conversion =
                name == "LoftQ"
                ? "name the model that LoftQ made, dequantized, before the '+'"
                : "convert it to plain LoRA with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…), or name "
                    + "the changed model before the '+'"
            throw TesseraError(
                .badData,
                "is \(article(name)) \(name) adapter: its factors are added to a model whose weights were changed when training "
                    + "began ('init_lora_weights': '\(initialisation)'), and the change \(reason)", file: file,
                advice: "\(conversion)\(name == "LoftQ" ? "," : "") and set 'init_lora_weights' to true")
        }
    }

    private static func article(_ name: String) -> String { "AEIOU(".contains(name.prefix(1)) ? "an" : "a" }
}

extension JSONText {
    /// The members of the object at `path` in the order of the text, each value as written; none if there is no object.
    func members(_ path: [String]) throws(TesseraError) -> [(key: String, value: String)] {
        guard let text = json(path), text.hasPrefix("{") else { return [] }
        var members: [(key: String, value: String)] = []
        var scanner = JSONScanner(Array(text.utf8), file: nil)
        try scanner.object { scanner, key throws(TesseraError) in
            let range = try scanner.value()
            members.append((key, String(decoding: scanner.bytes(of: range), as: UTF8.self)))
        }
        return members
    }

    /// The strings of the array at `path`; none if there is no array.
    func strings(_ path: [String]) -> [String] {
        (elements(path) ?? []).compactMap { text in
            var scanner = JSONScanner(Array(text.utf8), file: nil)
            return try? scanner.string()
        }
    }
}
