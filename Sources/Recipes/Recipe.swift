package import Checkpoints

/// A recipe, read: every mergekit configuration is one (docs/recipes.md).
package struct Recipe: Sendable {
    package struct Model: Sendable {
        package let model: Located<ModelReference>
        package let parameters: ParameterScope
    }

    /// As the user wrote it.
    package let text: String
    /// What messages call it.
    package let file: String
    package let method: Located<String>
    package let models: [Model]
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

    /// - Parameter strict: whether warnings are problems.
    /// - Throws: `Problems` with everything that is wrong, each with its line.
    package static func parse(text: String, file: String, strict: Bool = false) throws(Problems) -> Recipe {
        var reader = RecipeReader(text: text, file: file)
        return try reader.read(strict: strict)
    }

    /// The dtypes a recipe may name, by the names it uses for them.
    static let dtypes: [String: DType] = ["float16": .f16, "bfloat16": .bf16, "float32": .f32, "float64": .f64]

    /// The name that recipes and config files use for `dtype`.
    package static func name(of dtype: DType) -> String? { dtypes.first { $0.value == dtype }?.key }
}
