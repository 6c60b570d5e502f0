import Checkpoints
import Core
import Recipes

/// Whether the output's tensors fit the primary model's config, which comes along: a tensor that the primary has no part in may
/// have another shape than the primary's own, or be none of its tensors.
struct OutputFit {
    let inputs: InputSet
    /// As `OutputTensorList` says.
    let layerOrigins: [ExactText: [OutputTensorList.LayerOrigin]]
    private let primary: Int
    /// The shapes that the primary's layers have, by stack and what stands behind the layer's number.
    private let layerShapes: [ExactText: [ExactText: Set<[Int]>]]

    init(inputs: InputSet, layerOrigins: [ExactText: [OutputTensorList.LayerOrigin]]) {
        self.inputs = inputs
        self.layerOrigins = layerOrigins
        primary = inputs.base ?? 0
        var shapes: [ExactText: [ExactText: Set<[Int]>]] = [:]
        for name in inputs.inputs.count > 1 && !layerOrigins.isEmpty ? inputs.primary.tensorNames : [] {
            guard let layer = TensorName(name).layer, layerOrigins[layer.prefix] != nil,
                let shape = inputs.primary.tensor(named: name)?.shape
            else { continue }
            shapes[layer.prefix, default: [:]][Self.rest(of: name, layer), default: []].insert(shape)
        }
        layerShapes = shapes
    }

    private static func rest(of name: String, _ layer: TensorName.Layer) -> ExactText {
        ExactText(String(Substring(name.utf8.dropFirst("\(layer.prefix).\(layer.index).".utf8.count))))
    }

    /// - Parameters:
    ///   - tensors: of the output.
    ///   - hasOwnRows: whether the recipe or an adapter decides the number of rows of tensors with a vocabulary axis.
    /// - Returns: what the user should know.
    func remarks(_ tensors: [PlannedTensor], hasOwnRows: Bool) -> [String] {
        guard inputs.inputs.count > 1, inputs.primary.checkpoint.config != nil else { return [] }
        var misshapen: [String] = [], foreign: [String] = []
        for tensor in tensors where !tensor.namedModels.contains(primary) {
            let name = tensor.name, shape = tensor.shape
            if hasOwnRows, TensorName(name).hasVocabularyAxis { continue }
            let own: Set<[Int]>
            if let layer = TensorName(name).layer, layerOrigins[layer.prefix] != nil {
                own = layerShapes[layer.prefix]?[Self.rest(of: name, layer)] ?? []
            } else {
                own = (inputs.primary.tensor(named: name)?.shape).map { [$0] } ?? []
            }
            if own.isEmpty {
                // A head that the primary ties is made its own.
                if !TensorName(name).isHead { foreign.append("'\(name)'") }
            } else if let one = own.first, !own.contains(shape) {
                misshapen.append("'\(name)' has shape \(shape), and \(one) there")
            }
        }
        let home = "of '\(inputs.primary.reference)', whose config.json the output gets"
        return [
            misshapen.first.map { "\($0)\(more(misshapen)): some tensors are not as those \(home); it will not load with it" },
            foreign.first.map { "\($0)\(more(foreign)) is none \(home); loaders will not expect it" },
        ].compactMap(\.self)
    }

    private func more(_ names: [String]) -> String { names.count > 1 ? " (and \(names.count - 1) more)" : "" }
}
