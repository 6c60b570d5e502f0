package import Core
package import Operators
package import TaskVectors

/// The result of a shard besides the output's bytes.
package struct ShardResult: Sendable, Hashable, Codable {
    /// The digests of each output tensor's blocks, in the order of `ShardWork.outputs`.
    package let digests: [[Digest]]
    /// For each tensor of the shard, what its operation reported; empty if no operation reported anything.
    package let statistics: [TensorStatistics?]

    package init(digests: [[Digest]], statistics: [TensorStatistics?] = []) {
        self.digests = digests
        self.statistics = statistics
    }
}

/// What an operation reports about one tensor besides its output. Later stages may be planned from it.
package enum TensorStatistics: Sendable, Hashable, Codable {
    case merge(MergeStatistics)
    case encoding(EncodingStatistics)

    /// Every number that a worker names in the statistics, to be bounded.
    package var numbers: [Double] {
        switch self {
        case .merge(let statistics): statistics.all
        case .encoding(let statistics): statistics.numbers
        }
    }

    package var merge: MergeStatistics? {
        if case .merge(let statistics) = self { statistics } else { nil }
    }

    package var encoding: EncodingStatistics? {
        if case .encoding(let statistics) = self { statistics } else { nil }
    }
}

extension TensorWork {
    /// Checks that the statistics can be what the operation reports of this tensor. A merge reports what it likes, or nothing.
    ///
    /// - Throws: `protocolMismatch` for statistics that are missing, of another kind, for another number of tasks or sources, or
    ///   out of range; `badData` for values that the method does not accept.
    package func check(_ statistics: TensorStatistics?) throws(TesseraError) {
        let fits =
            switch (operation, statistics) {
            case (.merge, nil), (.merge, .merge), (.factor, nil), (.factor, .merge): true
            case (.measure(let merge, let stage), .merge(let found)):
                try MergeMethods.named(merge.method)?.init(merge.values, inputs: merge.inputs(sources, given: given))
                    .canReport(found, measuring: stage, shape: shape, sources: sources.count) == true
            case (.encode(let encoding), .encoding(let found)):
                found.canBe(of: encoding, shape: shape, sources: sources.count)
            default: false
            }
        guard fits else {
            throw TesseraError(.protocolMismatch, "the result's statistics cannot be those of this tensor", tensor: name)
        }
    }
}
