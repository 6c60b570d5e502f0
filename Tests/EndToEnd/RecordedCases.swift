import Core
import Foundation
import TestSupport
import Testing

/// Recipes whose outputs are recorded: one, or several of which the later ones read what the earlier ones made.
struct RecordedCase: Sendable, CustomTestStringConvertible {
    typealias Inputs = @Sendable (RecordedInputs) throws -> Void

    struct Run: Sendable {
        let output: String
        let recipe: String
        let arguments: [String]

        init(_ output: String, _ recipe: String, _ arguments: [String] = []) {
            self.output = output
            self.recipe = recipe
            self.arguments = arguments
        }
    }

    let name: String
    /// Writes what the recipes read beside `models` and `digits`.
    let inputs: Inputs
    let runs: [Run]

    var testDescription: String { name }

    init(_ name: String, with inputs: @escaping Inputs = { _ in }, _ runs: [Run]) {
        self.name = name
        self.inputs = inputs
        self.runs = runs
    }

    /// One recipe.
    init(
        _ name: String, with inputs: @escaping Inputs = { _ in }, _ recipe: String,
        _ arguments: [String] = []
    ) {
        self.init(name, with: inputs, [Run("out", recipe, arguments)])
    }

    /// What the record calls the output of a run.
    func key(_ run: Run) -> String { runs.count == 1 ? name : "\(name)/\(run.output)" }

    var keys: [String] { runs.map { key($0) } }

    static let merges = [
        golden, methods, parameters, layouts, slices, modules, vocabularies, adapters, types, specialValues, demo, largeMerges,
    ].flatMap(\.self)

    static let stores = [
        goldenStores, plainStores, storeVariants, extended, mergesOfStores, digitsStores, largeStores,
    ].flatMap(\.self)
}

// MARK: Recipes

extension RecordedCase {
    private static let tunes = (0..<3).map { "models/f32/tune-\($0)" }
    private static let pair = ["tune-0", "tune-1"]

    private static func merge(
        _ method: String, base: String? = nil, _ models: [String], each: String? = nil, _ more: String = ""
    ) -> String {
        let listed = models.map { model in "- {model: '\(model)'\(each.map { ", parameters: {\($0)}" } ?? "")}\n" }.joined()
        return "merge_method: \(method)\n\(base.map { "base_model: '\($0)'\n" } ?? "")models:\n\(listed)"
            + (more.isEmpty ? "" : "\(more)\n")
    }

    /// Every method, by its name.
    private static func everyMethod(base: String, _ models: [String]) -> [(name: String, recipe: String)] {
        let each = "weight: 0.4, density: 0.3"
        let onVectors = [
            "task_arithmetic", "ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties",
            "sce", "ram", "ramplus_tl", "model_stock", "multislerp",
        ].map { ($0, merge($0, base: base, models, each: each)) }
        let ofTwo = ["slerp", "nearswap"].map { ($0, merge($0, base: base, [models[0]], "parameters: {t: 0.3}")) }
        return onVectors + ofTwo + [
            ("linear", merge("linear", models, each: each)), ("karcher", merge("karcher", models)),
            ("nuslerp", merge("nuslerp", Array(models.prefix(2)), each: each)),
            ("arcee_fusion", merge("arcee_fusion", base: base, [models[0]])),
            ("passthrough", merge("passthrough", [models[0]], each: "scale: 0.7")),
        ]
    }

    // MARK: Merges

    private static let golden: [RecordedCase] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(Repository.golden)/cases")) ?? []
        return names.sorted().map { name in
            let recipe = try? String(contentsOfFile: "\(Repository.golden)/cases/\(name)/recipe.yml", encoding: .utf8)
            return RecordedCase("golden/\(name)", recipe ?? "")
        }
    }()

    private static let methods: [RecordedCase] = {
        let narrow = everyMethod(base: "models/bf16/base", (0..<3).map { "models/bf16/tune-\($0)" })
            .map { RecordedCase("methods/bf16/\($0.name)", $0.recipe) }
        let seeded = everyMethod(base: "models/f32/base", tunes).filter { $0.name.hasPrefix("d") }
            .map { RecordedCase("methods/seed-7/\($0.name)", $0.recipe, ["--seed", "7"]) }
        return narrow + seeded
    }()

    private static let parameters: [RecordedCase] = {
        let base = "models/f32/base"
        let onVectors: [(String, String, String, String)] = [
            ("ties-rescaled", "ties", "weight: 0.4, density: 0.3", "{normalize: false, rescale: true, lambda: 0.7}"),
            ("ties-no-entries", "ties", "weight: 0.4", "{density: 0}"),
            ("dare-linear-not-rescaled", "dare_linear", "weight: 0.4, density: 0.3", "{rescale: false, normalize: true}"),
            ("dare-ties-normalized", "dare_ties", "weight: 0.4, density: 0.6", "{normalize: true, lambda: 1.5}"),
            ("della-narrow", "della", "weight: 0.4, density: 0.9, epsilon: 0.05", "{rescale: false, normalize: false}"),
            ("della-linear-normalized", "della_linear", "weight: 0.4, density: 0.5, epsilon: 0.4", "{normalize: true}"),
            ("breadcrumbs-beyond-one", "breadcrumbs", "weight: 0.4, density: 0.9, gamma: 0.3", "{normalize: true}"),
            ("breadcrumbs-ties-rescaled", "breadcrumbs_ties", "weight: 0.4, density: 0.5, gamma: 0.1", "{rescale: true}"),
            ("multislerp-not-normalized", "multislerp", "weight: 0.3", "{normalize_weights: false, eps: 1.0e-4}"),
            ("sce-fifth", "sce", "weight: 1", "{select_topk: 0.2}"), ("sce-none", "sce", "weight: 1", "{select_topk: 0}"),
            ("ram-wide", "ram", "weight: 1", "{epsilon: 0.01}"),
            ("ramplus-tl-strong", "ramplus_tl", "weight: 1", "{epsilon: 0.01, r: 0.5, alpha: 0.8}"),
            ("task-arithmetic-lambda", "task_arithmetic", "weight: 0.4", "{lambda: -0.3, normalize: true}"),
        ]
        let deep = ["models/deep/tune-0", "models/deep/tune-1"]
        return onVectors.map { name, method, each, parameters in
            RecordedCase("parameters/\(name)", merge(method, base: base, tunes, each: each, "parameters: \(parameters)"))
        } + [
            RecordedCase("parameters/karcher-with-base", merge("karcher", base: base, tunes, "parameters: {max_iter: 2}")),
            RecordedCase(
                "parameters/nuslerp-base-rows",
                merge(
                    "nuslerp", base: base, Array(tunes.prefix(2)), each: "weight: 0.6",
                    "parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}")),
            RecordedCase(
                "parameters/nearswap-gradient",
                merge("nearswap", base: "models/deep/base", [deep[0]], "parameters: {t: [0.001, 0.1, 0.01]}")),
            RecordedCase(
                "parameters/dare-ties-gradients",
                merge(
                    "dare_ties", base: "models/deep/base", deep,
                    each: "weight: [0, 0.5, 1], density: [{filter: mlp, value: [1, 0.2]}, {value: 0.5}]"), ["--seed", "3"]),
            RecordedCase(
                "parameters/passthrough-filters",
                merge(
                    "passthrough", [deep[0]], each: "scale: [{filter: self_attn, value: [0, 1]}, {filter: mlp, value: 0.3}]")),
        ]
    }()

    private static let layouts = [
        RecordedCase(
            "layouts/parts", merge("linear", tunes, each: "weight: 0.3"), ["--max-part-size", "20kB", "--shard-size", "4kB"]),
        RecordedCase("layouts/sums", merge("linear", tunes, each: "weight: 0.3"), ["--sha256sums", "--threads", "1"]),
        RecordedCase("layouts/copy", merge("passthrough", ["models/deep/tune-0"]), ["--threads", "3"]),
        RecordedCase(
            "layouts/yaml",
            """
            # A comment, an anchor, numbers and booleans of YAML 1.1
            merge_method: ties
            base_model: models/f32/base
            models:
              - &first
                model: models/f32/tune-0
                parameters: {weight: 1e-1, density: 0.5}
              - <<: *first
                model: models/f32/tune-1
            parameters: {normalize: yes, int8_mask: on}
            dtype: torch.bfloat16
            """),
    ]

    private static let slices = [
        RecordedCase(
            "slices/stack", with: { try $0.llamaOfSixLayers() },
            """
            merge_method: passthrough
            slices:
            - sources: [{model: tune-0, layer_range: [0, 3]}]
            - sources: [{model: deeper, layer_range: [2, 6]}]
            - sources: [{model: deeper, layer_range: [2, 3], parameters: {scale: 0.5}}]
            """),
        RecordedCase(
            "slices/gradient-slerp", with: { try $0.llama() },
            """
            merge_method: slerp
            base_model: tune-0
            slices:
            - sources: [{model: tune-0, layer_range: [0, 4]}, {model: tune-1, layer_range: [0, 4]}]
            parameters:
              t: [{filter: self_attn, value: [0, 0.25, 0.75, 1]}, {filter: mlp, value: [1, 0]}, {value: 0.5}]
            dtype: float16
            """),
        RecordedCase(
            "slices/own-base", with: { try $0.llamaOfSixLayers() },
            """
            merge_method: task_arithmetic
            base_model: base
            slices:
            - sources: [{model: base, layer_range: [1, 3]}, {model: tune-0, layer_range: [1, 3]}]
            - base_model: deeper
              sources: [{model: deeper, layer_range: [4, 6]}, {model: tune-1, layer_range: [2, 4]}]
              parameters: {weight: [0.2, 0.8]}
            parameters: {weight: 0.5}
            """),
        RecordedCase(
            "slices/gaps", with: { try $0.llamaWithGaps() }, merge("linear", ["base", "tune-0", "tune-1"], each: "weight: 1")),
        RecordedCase(
            "slices/filters", with: { try $0.llama() },
            merge(
                "linear", pair,
                each:
                    "weight: [{filter: mlp, value: [0.1, 0.3]}, {filter: self_attn.o_proj, value: 0.5}, "
                    + "{filter: self_attn, value: [0.2, 0.8, 1]}, {value: 0.9}]"
            )),
    ]

    private static let modules: [RecordedCase] = {
        let models = "models: [{model: tune-0}, {model: tune-1}]"
        return [
            RecordedCase(
                "modules/vision-language", with: { try $0.visionLanguage() },
                """
                merge_method: linear
                modules:
                  text_decoder: {\(models), parameters: {weight: [1, 2]}}
                  vision_tower: {\(models), parameters: {weight: [1, 0.2]}}
                  multi_modal_projector: {\(models), parameters: {weight: 1}}
                """),
            RecordedCase(
                "modules/with-slices", with: { try $0.visionLanguage() },
                """
                merge_method: passthrough
                modules:
                  text_decoder:
                    slices:
                    - sources: [{model: tune-0, layer_range: [0, 2]}]
                    - sources: [{model: tune-1, layer_range: [1, 4]}]
                  vision_tower: {models: [{model: tune-1}]}
                  multi_modal_projector: {models: [{model: tune-0, parameters: {scale: 2}}]}
                """),
            RecordedCase(
                "modules/encoder-decoder", with: { try $0.encoderDecoder() },
                """
                merge_method: ties
                base_model: base
                modules:
                  encoder: {\(models), parameters: {weight: 1, density: [0.9, 0.3]}}
                  decoder: {\(models), parameters: {weight: [0.1, 0.5], density: 0.5}}
                  shared: {\(models), parameters: {weight: 1, density: 1}}
                """),
        ]
    }()

    private static let vocabularies: [RecordedCase] = {
        func based(_ more: String, method: String = "task_arithmetic") -> String {
            merge(method, base: "base", pair, each: "weight: 0.4", more)
        }
        let tokens = """
            tokenizer:
              source: union
              pad_to_multiple_of: 16
              tokens:
                b: {source: tune-0, force: true}
                <tool>: {source: {kind: model_token, model: base, token: <s>}}
                <far>: {source: {kind: model_token, model: tune-1, token_id: 3}}
                <new>: {source: {kind: zero}}
            """
        let inputs: Inputs = { try $0.vocabularies() }
        let cut: Inputs = { try $0.vocabulariesBeyondTheRows() }
        return [
            RecordedCase("vocabularies/union", with: inputs, based("tokenizer_source: union")),
            RecordedCase(
                "vocabularies/union-ties", with: inputs, based("tokenizer_source: union\nchat_template: auto", method: "ties")),
            RecordedCase(
                "vocabularies/union-without-base", with: inputs,
                merge("linear", ["tune-0", "base", "tune-1"], each: "weight: 1", "tokenizer_source: union\ndtype: float32")),
            RecordedCase("vocabularies/base", with: inputs, based("tokenizer_source: base\nchat_template: chatml")),
            RecordedCase("vocabularies/model", with: inputs, based("tokenizer_source: tune-0")),
            RecordedCase("vocabularies/tokens", with: inputs, based(tokens)),
            RecordedCase(
                "vocabularies/template", with: inputs,
                merge("passthrough", ["tune-1"], "chat_template: '{% for m in messages %}{{ m }}{% endfor %}'")),
            RecordedCase("vocabularies/cut-base", with: cut, based("tokenizer: {source: base, pad_to_multiple_of: 4}")),
            RecordedCase("vocabularies/cut-union", with: cut, based("tokenizer_source: union")),
            RecordedCase(
                "vocabularies/slices", with: inputs,
                """
                merge_method: passthrough
                slices:
                - sources: [{model: tune-0, layer_range: [0, 2]}]
                - sources: [{model: tune-1, layer_range: [1, 4]}]
                tokenizer_source: union
                """),
        ]
    }()

    private static let adapters: [RecordedCase] = {
        let inputs: Inputs = { try $0.adapters() }
        return [
            RecordedCase("adapters/folded", with: inputs, merge("passthrough", ["base+adapter"])),
            RecordedCase(
                "adapters/scaled", with: inputs, merge("passthrough", ["base+stabilised"], each: "scale: 0.5", "dtype: float32")),
            RecordedCase("adapters/whole-modules", with: inputs, merge("linear", ["base+whole", "tune-0"], each: "weight: 1")),
            RecordedCase(
                "adapters/several", with: inputs,
                merge(
                    "ties", base: "base", ["base+adapter", "base+stabilised", "base+whole", "tune-1"],
                    each: "weight: 0.8, density: 0.6")),
            RecordedCase(
                "adapters/merged", with: inputs,
                merge("lora_sum", base: "base", ["base+adapter", "base+stabilised"], each: "weight: 0.75", "output: adapter")),
            RecordedCase(
                "adapters/store", with: inputs,
                [
                    Run("store", StoreBench.recipe("quantize: {bits: 4, group: 16, min_rank: 0}", ["base+adapter", "tune-0"])),
                    Run("merged", merge("linear", ["store#base-adapter", "store#tune-0"], each: "weight: 0.5")),
                ]),
        ]
    }()

    private static let types: [RecordedCase] = {
        let inputs: Inputs = { try $0.types() }
        let names = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
        return everyMethod(base: "base", pair).map { RecordedCase("types/methods/\($0.name)", with: inputs, $0.recipe) }
            + names.map {
                RecordedCase("types/to/\($0)", with: inputs, merge("linear", pair, each: "weight: 0.5", "out_dtype: \($0)"))
            } + [
                RecordedCase("types/copy", with: inputs, merge("passthrough", ["tune-0"])),
                RecordedCase(
                    "types/two", with: inputs, merge("linear", pair, each: "weight: 0.5", "dtype: bfloat16\nout_dtype: float32")),
            ]
    }()

    private static let specialValues: [RecordedCase] = {
        let inputs: Inputs = { try $0.specialValues() }
        let names = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
        let methods = ["linear", "task_arithmetic", "ties", "dare_linear", "nearswap", "ram", "passthrough"]
        return everyMethod(base: "base", pair).filter { methods.contains($0.name) }
            .map { RecordedCase("special-values/methods/\($0.name)", with: inputs, $0.recipe) }
            + names.map {
                RecordedCase("special-values/to/\($0)", with: inputs, merge("passthrough", ["tune-0"], "out_dtype: \($0)"))
            }
    }()

    /// Trained weights.
    private static let demo = [
        RecordedCase(
            "digits/ties",
            merge(
                "ties", base: "digits/base",
                ["rotated", "inverted", "flipped", "upside-down", "noisy", "striped", "rolled", "quantised"].map {
                    "digits/\($0)"
                },
                each: "weight: 0.15, density: 0.5", "parameters: {normalize: false}\ndtype: float32"))
    ]

    private static let largeMerges: [RecordedCase] = {
        let methods = ["linear", "ties", "dare_ties", "della", "slerp", "sce", "breadcrumbs", "arcee_fusion", "model_stock"]
        return everyMethod(base: "base", pair).filter { methods.contains($0.name) }
            .map { RecordedCase("large/\($0.name)", with: { try $0.large(.f32) }, $0.recipe) }
    }()

    // MARK: Stores

    /// What is made of a store's tasks: the second fine-tune, or a merge of all.
    private enum Reading { case rebuilt, merged }

    private static func runs(
        _ how: String, _ tasks: [String], base: String = "base", arguments: [String] = [],
        reading: [Reading] = [.rebuilt, .merged]
    ) -> [Run] {
        let references = tasks.map { "store#\($0.split(separator: "/").last ?? "")" }
        return [Run("store", StoreBench.recipe(how, tasks, base: base), arguments)]
            + reading.map {
                switch $0 {
                case .rebuilt: Run("rebuilt", StoreBench.rebuilding(references[1]))
                case .merged: Run("ties", merge("ties", base: base, references, each: "weight: 0.4, density: 0.3"))
                }
            }
    }

    /// The recipes of `Tests/Golden/seed-cases`.
    private static let goldenStores = StoreGoldenTests.families.map { family in
        RecordedCase("golden-stores/\(family.testDescription)", family.recipe)
    }

    private static let plainStores: [RecordedCase] = ["f32", "bf16"].flatMap { family in
        StoreSameBytesTests.kinds.map { kind in
            RecordedCase(
                "stores/\(family)/\(kind.name)",
                runs(
                    kind.text, (0..<3).map { "models/\(family)/tune-\($0)" }, base: "models/\(family)/base",
                    reading: family == "f32" ? [.rebuilt, .merged] : [.rebuilt]))
        }
    }

    private static let storeVariants: [RecordedCase] = {
        let base = "models/f32/base"
        let variants: [(String, String)] = [
            ("tvq-1-bit", "quantize: {bits: 1}"), ("tvq-8-bits", "quantize: {bits: 8, group: 16}"),
            ("tvq-large-groups", "quantize: {bits: 5, group: 8192, min_rank: 0}"),
            ("tvq-filtered", "quantize: {bits: 6, include: [mlp, self_attn], exclude: down_proj, rest: float16}"),
            ("rtvq-groups", "quantize: {scheme: rtvq, bits: {base: 2, offset: 4}, group: 32, min_rank: 1}"),
            ("rtvq-filtered", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}, exclude: mlp, rest: bfloat16}"),
            ("budget-absolute", "quantize: {budget: 3 bits, sensitivity: absolute}"),
            ("budget-floor", "quantize: {budget: 2.25, floor: 2}"), ("budget-share", "quantize: {budget: 20%, exclude: norm}"),
            ("budget-rtvq-small", "quantize: {scheme: rtvq, budget: 1.5 bits}"),
            ("magnitude-few", "sparsify: {method: magnitude, density: 0.001, scope: model}"),
            ("magnitude-all", "sparsify: {method: magnitude, density: 1, values: float16}"),
            ("dare-narrow", "sparsify: {method: dare, density: 0.5, values: bfloat16, include: mlp, rest: float16}"),
            ("n-m-prorated", "sparsify: {method: 'n:m', n: 5, m: 64, tail: prorate}"),
            ("n-m-smallest", "sparsify: {method: 'n:m', n: 1, m: 2, min_rank: 2}"),
            ("cabs-crowded", "sparsify: {method: cabs, n: 3, m: 8, tail: prorate, values: {bits: 5, group: tensor}}"),
            ("cabs-large", "sparsify: {method: cabs, n: 200, m: 1024}"),
            ("tall-one-lambda", "sparsify: {method: tall, mask_lambda: 0.3, exclude: norm, values: float32}"),
            ("emr-sums", "sparsify: {method: emr, rescale: sums, values: {bits: 6, group: row}}"),
        ]
        let typed = [
            "tvq-tensor", "tvq-row", "tvq-group", "rtvq", "budget-rtvq", "magnitude", "magnitude-model", "dare", "cabs",
            "tall-4-bits", "emr", "sparse-rows",
        ]
        return variants.map { RecordedCase("stores/variants/\($0)", runs($1, tunes, base: base, reading: [.merged])) }
            + StoreSameBytesTests.kinds.filter { typed.contains($0.name) }.map { kind in
                let text = kind.text.replacingOccurrences(of: "[0.4, 0.2, 0.6]", with: "[0.4, 0.2]")
                    .replacingOccurrences(of: ", exclude: [norm]", with: "")
                return RecordedCase("stores/types/\(kind.name)", with: { try $0.types() }, runs(text, pair))
            } + [
                RecordedCase(
                    "stores/parts",
                    runs(
                        "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}", tunes, base: base,
                        arguments: ["--max-part-size", "4kB", "--shard-size", "2kB"])),
                RecordedCase(
                    "stores/seed-5",
                    runs(
                        "sparsify: {method: dare, density: 0.4}", tunes, base: base, arguments: ["--seed", "5", "--sha256sums"])),
                RecordedCase(
                    "stores/sensitivity",
                    with: {
                        try Data("mlp: 100\nself_attn.q_proj: 0.01\n".utf8).write(
                            to: URL(fileURLWithPath: "\($0.directory)/w.yml"))
                    },
                    runs("quantize: {budget: 2 bits, sensitivity: w.yml}", tunes, base: base)),
            ]
    }()

    private static let extended: [RecordedCase] = [
        ("tvq-group", "quantize: {bits: 4, group: 32}"), ("tvq", "quantize: {bits: 4}"),
        ("rtvq", "quantize: {scheme: rtvq, bits: {base: 3, offset: 4}}"),
        ("rtvq-row", "quantize: {scheme: rtvq, bits: {base: 3, offset: 4}, group: row}"),
        ("budget", "quantize: {budget: 5 bits}"), ("budget-rtvq", "quantize: {scheme: rtvq, budget: 5 bits}"),
        ("magnitude", "sparsify: {method: magnitude, density: 0.6}"),
        ("magnitude-model", "sparsify: {method: magnitude, density: 0.6, scope: model, values: {bits: 6, group: 32}}"),
        ("dare", "sparsify: {method: dare, density: 0.6}"),
        ("n-m", "sparsify: {method: 'n:m', n: 5, m: 8, tail: prorate}"),
    ].map { name, how in
        let base = "models/f32/base"
        return RecordedCase(
            "extended/\(name)",
            [
                Run("small", StoreBench.recipe(how, Array(tunes.prefix(2)), base: base)),
                Run("store", StoreBench.recipe(how, [tunes[2]], base: base, extend: "small")),
                Run("linear", merge("linear", (0..<3).map { "store#tune-\($0)" }, each: "weight: 0.3")),
            ])
    }

    private static let mergesOfStores: [RecordedCase] = {
        let base = "models/f32/base"
        let grid = Run("grid", StoreBench.recipe("quantize: {bits: 4, group: 32}", tunes, base: base))
        let sparse = Run("sparse", StoreBench.recipe("sparsify: {method: emr}", tunes, base: base))
        let deep = ["models/deep/tune-0", "models/deep/tune-1"]
        return [
            RecordedCase(
                "merges-of-stores/methods",
                [grid] + everyMethod(base: base, (0..<3).map { "grid#tune-\($0)" }).map { Run($0.name, $0.recipe) }),
            RecordedCase(
                "merges-of-stores/mixed",
                [
                    grid, sparse,
                    Run(
                        "della",
                        merge(
                            "della", base: base, ["grid#tune-0", "sparse#tune-1", tunes[2]], each: "weight: 0.4, density: 0.5",
                            "dtype: bfloat16")),
                    Run("nuslerp", merge("nuslerp", ["grid#tune-0", "sparse#tune-1"], each: "weight: 0.4")),
                    Run("parts", merge("linear", ["grid#tune-0"], each: "weight: 1"), ["--max-part-size", "20kB"]),
                ]),
            RecordedCase(
                "merges-of-stores/slices",
                [
                    Run("store", StoreBench.recipe("quantize: {bits: 3, group: row}", deep, base: "models/deep/base")),
                    Run(
                        "stack",
                        """
                        merge_method: passthrough
                        slices:
                        - sources: [{model: 'store#tune-0', layer_range: [0, 4]}]
                        - sources: [{model: models/deep/base, layer_range: [3, 5]}]
                        - sources: [{model: 'store#tune-1', layer_range: [2, 6], parameters: {scale: 0.9}}]
                        """),
                ]),
            RecordedCase(
                "merges-of-stores/names",
                [
                    Run(
                        "store",
                        """
                        sparsify: {method: magnitude, density: 0.4}
                        base_model: models/f32/base
                        models:
                        - {model: models/f32/tune-0, name: first_1.0}
                        - {model: {path: models/f32/tune-1}, name: Second-one}
                        """),
                    Run("merged", merge("model_stock", base: base, ["store#first_1.0", "store#Second-one"])),
                ]),
        ]
    }()

    private static let digitsStores: [RecordedCase] = [
        ("budget", "quantize: {budget: 2.25 bits}"), ("emr", "sparsify: {method: emr}"),
    ].map { name, how in
        RecordedCase(
            "digits/\(name)",
            runs(how, ["rotated", "inverted", "noisy"].map { "digits/\($0)" }, base: "digits/base", reading: [.merged]))
    }

    private static let largeStores: [RecordedCase] = [
        ("tvq", "quantize: {bits: 3}", [.merged]),
        ("rtvq-row", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}, group: row}", [.merged]),
        ("budget", "quantize: {budget: 2.25 bits}", []),
        ("magnitude-model", "sparsify: {method: magnitude, density: 0.3, scope: model, values: {bits: 4, group: 64}}", [.merged]),
        ("tall", "sparsify: {method: tall}", []), ("emr", "sparsify: {method: emr}", []),
        ("cabs", "sparsify: {method: cabs, n: 4, m: 16}", []),
    ].map { (name: String, how: String, reading: [Reading]) in
        RecordedCase("large/\(name)", with: { try $0.large(.bf16) }, runs(how, pair, reading: reading))
    }
}
