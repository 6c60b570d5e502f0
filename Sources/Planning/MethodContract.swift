import Core
import Operators
import Recipes

/// How many models a method takes, and whether with a base: what can be said of a recipe before its models are opened.
struct MethodContract {
    let recipe: Recipe
    let method: any MergeMethod.Type

    func problems() -> [TesseraError] { recipe.modules.flatMap { problems(of: $0.body) } }

    private func problems(of body: Recipe.Body) -> [TesseraError] {
        switch body {
        case .models(let models):
            var named = models.map { $0.model }
            // The base of whole models takes part, listed or not.
            if let base = recipe.baseModel, !named.contains(where: { $0.value == base.value }) { named.append(base) }
            return [problem(of: named, base: recipe.baseModel?.value, line: recipe.method.line)].compactMap(\.self)
        case .slices(let slices):
            return slices.compactMap { slice in
                let named = slice.sources.map { Located($0.model.value, line: $0.layers?.line ?? $0.model.line) }
                let base = (slice.baseModel ?? recipe.baseModel)?.value
                return problem(
                    of: named, base: base.flatMap { base in named.map(\.value).first { $0 == base } }, line: slice.line)
            }
        }
    }

    /// - Parameters:
    ///   - base: one of the models; `nil` where none of them is.
    ///   - line: of what decides how many models there are.
    private func problem(of models: [Located<ModelReference>], base: ModelReference?, line: Int) -> TesseraError? {
        var seen: Set<ModelReference> = []
        if let twice = models.first(where: { !seen.insert($0.value).inserted }) {
            return told(
                "the model '\(twice.value)' is listed twice", twice.line, "list it once, with the sum of the weights")
        }
        if method.inputs.base == .required, base == nil {
            return told(
                "the method '\(method.name)' needs a base model", line,
                recipe.baseModel == nil ? "add 'base_model: PATH'" : "list the base among the sources of every slice")
        }
        let hasBaseRole = method.inputs.givesBaseARole && base != nil
        let count = models.count - (hasBaseRole ? 1 : 0), range = method.inputs.models
        guard !range.contains(count) else { return nil }
        let expected = range.count == 1 ? "\(range.lowerBound)" : "at least \(range.lowerBound)"
        return told(
            "the method '\(method.name)' takes \(expected) \(range.upperBound == 1 ? "model" : "models")"
                + "\(hasBaseRole ? " besides the base" : ""); the recipe has \(count)",
            line,
            !method.inputs.givesBaseARole && base != nil && recipe.baseModel != nil
                ? "the base counts as a model here; remove 'base_model'"
                : count > range.upperBound
                    ? "remove \(count - range.upperBound), or choose a method for more models"
                    : "add \(range.lowerBound - count) more")
    }

    private func told(_ problem: String, _ line: Int, _ advice: String) -> TesseraError {
        TesseraError(.badData, problem, file: recipe.file, line: line, advice: advice)
    }
}
