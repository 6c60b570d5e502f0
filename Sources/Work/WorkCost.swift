package import Core
package import Operators
import TaskVectors

extension MergeOperation {
    /// The method, bound to its values.
    ///
    /// - Throws: `protocolMismatch` when this build does not know the method, and what the method does not like about its values.
    package func method(sources: Int) throws(TesseraError) -> any MergeMethod {
        guard let method = MergeMethods.named(method) else {
            throw TesseraError(.protocolMismatch, "this build does not know the method '\(method)'")
        }
        return try method.init(values, inputs: inputs(count: sources))
    }

    /// How the method counts its sources.
    package func inputs(count: Int) -> TensorInputs { TensorInputs(count: count, base: base, randomKey: randomKey ?? 0) }
}

extension TensorWork {
    /// How often the sources are read, and the memory for statistics, a tile of every source, adapters' factors as float32, once as stored
    /// and once as used, and mean rows of aligned sources.
    package func cost() throws(TesseraError) -> OperatorCost {
        let cost: OperatorCost =
            switch operation {
            case .merge(let merge): try merge.method(sources: sources.count).cost(of: shape)
            case .encode(let encoding): encoding.cost(of: shape, sources: sources.count)
            }
        let factors = sources.compactMap(\.adapter).reduce(0) { $0 + $1.a.count + $1.b.count }
        let rows = alignment.map { $0.maps.count * $0.rowLength } ?? 0
        let own = MemoryNeed(
            shared: (2 * factors + rows) * MemoryLayout<Float>.stride, perThread: Tile.byteCount(sources: sources.count))
        return OperatorCost(passes: cost.passes, memory: cost.memory + own)
    }
}
