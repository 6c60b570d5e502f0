package import Core

/// A parsed merge recipe. Every mergekit configuration is a recipe (docs/recipes.md).
package struct Recipe: Sendable {
    /// A model to merge, or a range of its layers.
    package struct Source: Sendable {
        package let model: Located<ModelReference>
        /// `layer_range`, whose second number is exclusive; `nil` for all layers.
        package let layers: Located<Range<Int>>?
        package let parameters: ParameterScope
    }

    /// Layers of the output and their sources.
    package struct Slice: Sendable {
        package let sources: [Source]
        /// Overrides the recipe's base model.
        package let baseModel: Located<ModelReference>?
        package let parameters: ParameterScope
        package let line: Int
    }

    package enum Body: Sendable {
        /// `models`: whole models, layer by layer.
        case models([Source])
        /// `slices`: layers stacked in list order.
        case slices([Slice])

        package var sources: [Source] {
            switch self {
            case .models(let models): models
            case .slices(let slices): slices.flatMap(\.sources)
            }
        }
    }

    /// A module of a multi-part model, such as `text_decoder`. A recipe without `modules` has one module without a name.
    package struct Module: Sendable {
        package let name: Located<String>?
        package let body: Body
        /// The stack of layers that the slices are of, where the recipe names one: the text before the layers' numbers, or its
        /// end.
        package let stack: Located<String>?
        package let parameters: ParameterScope
    }

    /// The recipe as the user wrote it.
    package let text: String
    /// The name used in messages.
    package let file: String
    package let method: Located<String>
    package let modules: [Module]
    package let baseModel: Located<ModelReference>?
    /// The recipe's top-level parameters, used where a model sets none.
    package let parameters: ParameterScope
    /// mergekit's working type. Here it is the output type unless `outDtype` is set, since all arithmetic is in float32.
    package let dtype: DType?
    package let outDtype: DType?
    /// How to align vocabularies; `nil` to merge rows by id.
    package let tokenizer: TokenizerRecipe?
    package let chatTemplate: Located<ChatTemplateSetting>?
    /// What is written; `nil` for a checkpoint.
    package let output: Located<OutputForm>?
    /// What is done with tensors that some models lack; `nil` for the rules that need no word.
    let missing: ParameterSetting?
    /// Problems that do not prevent a merge but are probably mistakes.
    package let warnings: [TesseraError]

    /// Every model except base models, once, in recipe order.
    package var models: [ModelReference] {
        var models: [ModelReference] = []
        for source in modules.flatMap(\.body.sources) where !models.contains(source.model.value) {
            models.append(source.model.value)
        }
        return models
    }

    /// Parses a recipe that must describe a merge.
    package static func parse(text: String, file: String, strict: Bool = false) throws(Problems) -> Recipe {
        switch try JobRecipe.parse(text: text, file: file, strict: strict) {
        case .merge(let recipe): return recipe
        case .sweep: throw Problems([TesseraError(.badData, "describes a sweep, not one merge", file: file)])
        case .store: throw Problems([TesseraError(.badData, "describes a task-vector store, not a merge", file: file)])
        }
    }

    /// The types that a recipe may name, by their PyTorch names.
    static let dtypes: [String: DType] = [
        "float8_e4m3fn": .f8E4M3, "float8_e5m2": .f8E5M2, "float16": .f16, "bfloat16": .bf16, "float32": .f32, "float64": .f64,
    ]

    /// What people call the types elsewhere.
    static let shortTypes = [
        "fp16": "float16", "f16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "f32": "float32",
        "float": "float32", "single": "float32", "fp64": "float64", "f64": "float64", "double": "float64",
        "fp8": "float8_e4m3fn", "float8": "float8_e4m3fn", "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2",
    ]

    /// The type that a config file names, with or without `torch.`; `nil` for a name that is none.
    package static func dtype(named name: String) -> DType? {
        dtypes[name.hasPrefix("torch.") ? String(name.dropFirst("torch.".count)) : name]
    }

    /// The name that recipes and config files use for `dtype`.
    package static func name(of dtype: DType) -> String? { dtypes.first { $0.value == dtype }?.key }
}
