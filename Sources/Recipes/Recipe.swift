package import Core

/// A recipe, read: every mergekit configuration is one (docs/recipes.md).
package struct Recipe: Sendable {
    /// A model that takes part, wholly or with a range of its layers.
    package struct Source: Sendable {
        package let model: Located<ModelReference>
        /// `layer_range`: from the first layer up to, not including, the second; `nil` for all.
        package let layers: Located<Range<Int>>?
        package let parameters: ParameterScope
    }

    /// Some layers of the output, and where they come from.
    package struct Slice: Sendable {
        package let sources: [Source]
        /// Instead of the recipe's base.
        package let baseModel: Located<ModelReference>?
        package let parameters: ParameterScope
        package let line: Int
    }

    package enum Body: Sendable {
        /// `models`: whole models, layer by layer.
        case models([Source])
        /// `slices`: layers stacked in the order of the list.
        case slices([Slice])

        package var sources: [Source] {
            switch self {
            case .models(let models): models
            case .slices(let slices): slices.flatMap(\.sources)
            }
        }
    }

    /// A part of a model of several parts, such as `text_decoder`; a recipe without `modules` is one without a name.
    package struct Module: Sendable {
        package let name: Located<String>?
        package let body: Body
        package let parameters: ParameterScope
    }

    /// As the user wrote it.
    package let text: String
    /// What messages call it.
    package let file: String
    package let method: Located<String>
    package let modules: [Module]
    package let baseModel: Located<ModelReference>?
    /// The recipe's own parameters, which apply where a model says nothing.
    package let parameters: ParameterScope
    /// mergekit's working type; here the output's type unless `outDtype` says otherwise, since all arithmetic is in float32.
    package let dtype: DType?
    package let outDtype: DType?
    /// How vocabularies are aligned; `nil` when rows are merged by id.
    package let tokenizer: TokenizerRecipe?
    package let chatTemplate: Located<ChatTemplateSetting>?
    /// What does not stop a merge but is probably not what the user means.
    package let warnings: [TesseraError]

    /// Every model that is named besides a base, once, in the order of the recipe.
    package var models: [ModelReference] {
        var models: [ModelReference] = []
        for source in modules.flatMap(\.body.sources) where !models.contains(source.model.value) {
            models.append(source.model.value)
        }
        return models
    }

    /// A recipe that is known to merge.
    package static func parse(text: String, file: String, strict: Bool = false) throws(Problems) -> Recipe {
        guard case .merge(let recipe) = try JobRecipe.parse(text: text, file: file, strict: strict) else {
            throw Problems([TesseraError(.badData, "makes a store of task vectors, not a merge", file: file)])
        }
        return recipe
    }

    /// The dtypes a recipe may name, by the names it uses for them, which are PyTorch's.
    static let dtypes: [String: DType] = [
        "float8_e4m3fn": .f8E4M3, "float8_e5m2": .f8E5M2, "float16": .f16, "bfloat16": .bf16, "float32": .f32, "float64": .f64,
    ]

    /// The name that recipes and config files use for `dtype`.
    package static func name(of dtype: DType) -> String? { dtypes.first { $0.value == dtype }?.key }
}
