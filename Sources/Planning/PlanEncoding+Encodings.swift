import Operators
import TaskVectors
import Work

/// How task vectors are encoded.
extension PlanEncoding {
    mutating func encoding(_ encoding: Encoding) {
        switch encoding {
        case .quantize(let quantizer):
            tag(0)
            optional(quantizer.shared) { $0.format($1) }
            flag(quantizer.sharedIsFrozen)
            flag(quantizer.correctsErrors)
            list(quantizer.tasks) { $0.format($1) }
            // Plans from before there was packing keep their digests.
            if let limit = quantizer.packLimit { integer(limit) }
        case .sparsify(let encoder):
            tag(1)
            sparse(encoder)
        case .mask(let masks):
            tag(2)
            self.masks(masks)
        case .compare: tag(3)
        case .measureGrids(let measurement):
            tag(4)
            list(measurement.shared) { $0.format($1) }
            flag(measurement.sharedIsFrozen)
            list(measurement.formats) { $0.format($1) }
        case .measureMagnitudes(let measurement):
            tag(5)
            list(measurement.bins) { encoding, bin in encoding.optional(bin) { $0.integer(Int($1)) } }
            flag(measurement.isSecondRound)
        case .countKept(let encoder):
            tag(6)
            sparse(encoder)
        }
    }

    private mutating func sparse(_ encoder: SparseEncoder) {
        switch encoder.selection {
        case .largest(let counts):
            tag(0)
            integers(counts)
        case .random(let density, let keys):
            tag(1)
            number(density)
            list(keys) { $0.bits($1) }
        case .blocks(let n, let m, let tail, let isDisjoint):
            tag(2)
            integer(n)
            integer(m)
            flag(tail == .prorate)
            flag(isDisjoint)
        }
        values(encoder.values)
        integers(encoder.kept)
    }

    private mutating func masks(_ masks: TaskMasks) {
        switch masks.rule {
        case .tall(let lambdas):
            tag(0)
            list(lambdas) { $0.number($1) }
        case .emr: tag(1)
        }
        values(masks.shared)
        integer(masks.taskCount)
    }

    mutating func format(_ format: StorageFormat) {
        switch format {
        case .zero: tag(0)
        case .dense(let values):
            tag(1)
            self.values(values)
        case .sparse(let kept, let values):
            tag(2)
            integer(kept)
            self.values(values)
        case .mask: tag(3)
        case .thinned(let grid):
            tag(4)
            integer(grid.bits)
            integer(grid.group)
            integer(grid.every)
            bits(grid.key)
        case .signs(let scaling):
            tag(5)
            tag(scaling == .tensor ? 0 : scaling == .row ? 1 : 2)
        }
    }

    private mutating func values(_ values: ValueFormat) {
        switch values {
        case .raw(let dtype):
            tag(0)
            type(dtype)
        case .grid(let grid):
            tag(1)
            integer(grid.bits)
            switch grid.granularity {
            case .tensor: tag(0)
            case .row: tag(1)
            case .group(let length):
                tag(2)
                integer(length)
            }
        }
    }
}
