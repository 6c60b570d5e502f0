import Core
import Recipes

/// The numbered stacks that a model's tensor names show, such as `model.layers` with 32 layers, for any architecture.
struct LayerStacks {
    /// Layers by the text before their number.
    let counts: [ExactText: Int]

    init(names: [String]) {
        var counts: [ExactText: Int] = [:]
        for name in names {
            if let layer = TensorName(name).layer { counts[layer.prefix] = max(counts[layer.prefix] ?? 0, layer.index + 1) }
        }
        self.counts = counts
    }

    /// Where a gradient is evaluated for the layer: `k / (L − 1)` in a stack of `L` layers, 1 in a stack of one.
    static func position(of layer: Int, in count: Int) -> Double { count > 1 ? Double(layer) / Double(count - 1) : 1 }

    /// The same for a tensor by its name; 0 outside the stacks (mergekit-compatible).
    func position(of name: String) -> Double {
        guard let layer = TensorName(name).layer, let count = counts[layer.prefix] else { return 0 }
        return Self.position(of: layer.index, in: count)
    }
}
