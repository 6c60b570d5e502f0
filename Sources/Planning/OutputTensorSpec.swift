import Operators
import Recipes

/// One output tensor as the recipe asks for it, before anybody has looked whether the models have what it needs.
struct OutputTensorSpec {
    struct Source {
        /// Which of the recipe's models.
        let model: Int
        /// What the tensor is called there: its layer's number may be another than in the output.
        let name: String
        /// The parameters written at the model.
        let parameters: ParameterScope
        let line: Int
    }

    /// Numbers the slices of the recipe: tensors of one slice have the same models, parameters and base.
    let slice: Int
    /// In the output.
    let name: String
    /// In the order of the recipe, an implicit base last.
    let sources: [Source]
    /// Which of the sources is the slice's base, in whatever role the method gives it.
    let base: Int?
    /// The parameters of slice, module and recipe, the nearest first.
    let scopes: [ParameterScope]
    /// Where gradients are evaluated, 0...1.
    let position: Double

    /// With one of the sources alone, which is then no base.
    func alone(_ source: Int) -> OutputTensorSpec {
        OutputTensorSpec(
            slice: slice, name: name, sources: [sources[source]], base: nil, scopes: scopes, position: position)
    }
}

/// What parameter `name` is for one of the sources, or for the whole tensor.
extension OutputTensorSpec {
    /// One value for the output tensor; filters look at the output's name.
    func value(_ name: String) -> Located<ScalarValue>? {
        scopes.lazy.compactMap { $0.value(name, at: position, tensor: self.name) }.first
    }

    /// The last line of the recipe that has a say in one of the parameters of this tensor.
    func lastLine(of parameters: [Parameter]) -> Int? {
        parameters.flatMap { parameter in
            parameter.scope == .shared ? [value(parameter.name)?.line] : sources.map { value(parameter.name, of: $0)?.line }
        }.compactMap(\.self).max()
    }

    /// One value for a source; filters look at the name that the tensor has there.
    func value(_ name: String, of source: Source) -> Located<ScalarValue>? {
        ([source.parameters] + scopes).lazy.compactMap { $0.value(name, at: position, tensor: source.name) }.first
    }
}
