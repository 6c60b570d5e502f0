import Core
import Operators
import Recipes

/// LiNeS (arXiv 2410.17146) as a modifier of any method with a scale: in layer `l` of `L` the scale is multiplied by
/// `alpha + beta·l/(L − 1)`, and outside the layers by `alpha`.
enum LayerScaling {
    /// The parameters that `lines` adds to those of the method; none where there is nothing to multiply.
    static func parameters(of method: any MergeMethod.Type) -> [Parameter] {
        guard scale(of: method) != nil else { return [] }
        return [
            .number(LayerScale.alpha, .shared, default: nil, "The factor of the first layer's scale."),
            .number(LayerScale.beta, .shared, default: nil, "What the last layer's factor has more."),
        ]
    }

    /// The shared number by which the method scales its update, also where more than the last step depends on the number.
    private static func scale(of method: any MergeMethod.Type) -> String? {
        method.scale ?? method.parameters.first { $0.name == "lambda" && $0.scope == .shared }?.name
    }

    /// Multiplies the scale, and takes the factors out of the values.
    ///
    /// - Parameter position: of the tensor's layer, 0...1; 0 outside the layers.
    /// - Returns: what is wrong with the values, and what to do about it.
    static func apply(
        to values: inout ParameterValues, of method: any MergeMethod.Type, at position: Double
    ) -> (problem: String, advice: String)? {
        let alpha = values.shared.removeValue(forKey: LayerScale.alpha)
        let beta = values.shared.removeValue(forKey: LayerScale.beta)
        guard alpha != nil || beta != nil else { return nil }
        guard case .number(let alpha)? = alpha, case .number(let beta)? = beta else {
            return ("'lines' has only one of 'alpha' and 'beta'", "write both, as in 'lines: {alpha: 0.125, beta: 0.5}'")
        }
        guard let name = scale(of: method), case .number(let scale)? = values.shared[name] else {
            let name = scale(of: method) ?? "lambda"
            return (
                "'lines' multiplies '\(name)', which has no single default in the method '\(method.name)'",
                "write '\(name)' beside 'lines'"
            )
        }
        values.shared[name] = .number(scale * (alpha + beta * position))
        return nil
    }
}

extension MergeMethod {
    /// What a recipe may say under `parameters:`.
    static var recipeParameters: [Parameter] { parameters + LayerScaling.parameters(of: Self.self) }
}
