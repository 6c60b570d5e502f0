package import Core
import LinearAlgebra
package import Operators
import TaskVectors

extension MergeOperation {
    /// - Throws: `protocolMismatch` for a method that this build does not have, `badData` for values that the method does not
    ///   accept, `inputMissing` without the linear algebra library that it needs, `temporary` where another host may have the
    ///   library of the plan.
    package func method(_ sources: [SourceReference], given: [GivenReference] = []) throws(TesseraError) -> any MergeMethod {
        guard let method = MergeMethods.named(method) else {
            throw TesseraError(.protocolMismatch, "this build has no method '\(method)'")
        }
        if method.usesLinearAlgebra { try LinearAlgebra.checkIdentity(linearAlgebra) }
        return try method.init(values, inputs: inputs(sources, given: given))
    }

    /// - Throws: as `method`; `badData` for a method that has no factors.
    package func factoredMethod(
        _ sources: [SourceReference], given: [GivenReference]
    ) throws(TesseraError) -> any FactoredMethod {
        guard let method = try method(sources, given: given) as? any FactoredMethod else {
            throw TesseraError(.badData, "the method '\(method)' does not find factors")
        }
        return method
    }

    /// The roles of the sources, and of what is given beside them.
    package func inputs(_ sources: [SourceReference], given: [GivenReference] = []) -> TensorInputs {
        let origin = base.flatMap { sources.indices.contains($0) ? sources[$0] : nil }
        let ranks = sources.map { source -> Int? in
            if case .lowRank(let matrix, let update) = source, matrix == origin { return update.rankOfMatrix }
            return source == origin ? 0 : nil
        }
        return TensorInputs(
            count: sources.count, base: base, randomKey: randomKey ?? 0, given: given.map(\.role), ranks: ranks)
    }
}

extension TensorWork {
    /// - Throws: `badData` unless `outputs` are exactly those that the operation writes.
    package func checkOutputs() throws(TesseraError) {
        let written: [(dtype: DType, byteCount: Int, blockSize: Int)] =
            switch operation {
            case .merge(let merge):
                try Array(repeating: merge.codec.codec().outputs(shape: shape), count: merge.values.outputCount).joined()
                    .map { ($0.dtype, $0.byteCount, $0.blockSize) }
            case .factor(let merge, let factors):
                try factors.outputs(of: shape, dtype: merge.codec.dtype).map { ($0.dtype, $0.byteCount, $0.blockSize) }
            case .encode(let encoding):
                encoding.outputs(shape: shape).joined().map { ($0.dtype, $0.byteCount, $0.blockSize) }
            case .measure: []
            }
        guard written.count == outputs.count,
            zip(written, outputs).allSatisfy({ $0 == ($1.dtype, $1.byteCount, $1.blockSize) })
        else { throw TesseraError(.badData, "the shard's outputs are not those that its operation writes") }
    }

    /// The cost of the operation, including each thread's tile, open sources, and the arithmetic of reading them.
    package func cost() throws(TesseraError) -> OperatorCost {
        let cost: OperatorCost
        switch operation {
        case .merge(let merge):
            let method = try merge.method(sources, given: given)
            try method.check(shape)
            cost = try merge.codec.codec().adding(
                to: method.cost(of: shape), shape: shape, outputs: merge.values.outputCount)
        case .factor(let merge, _): cost = try merge.factoredMethod(sources, given: given).factorCost(of: shape)
        case .encode(let encoding): cost = encoding.cost(of: shape, sources: sources.count)
        case .measure(let merge, let stage):
            let method = try merge.method(sources, given: given)
            try method.check(shape)
            cost = method.cost(of: shape, measuring: stage)
        }
        let open = nestedSources.reduce(0) { $0 + $1.memory }
        return cost.adding(
            operations: Double(cost.passes) * separateSources.reduce(0) { $0 + $1.operations },
            memory: MemoryNeed(shared: open, perThread: Tile.byteCount(sources: sources.count)))
    }

    /// A rough estimate of the seconds that one thread takes (`OperatorCost.estimatedSeconds`).
    ///
    /// - Parameter cost: the result of `cost()`.
    package func estimatedSeconds(_ cost: OperatorCost) -> Double {
        cost.estimatedSeconds(read: sourceByteCount, written: byteCount)
    }
}
