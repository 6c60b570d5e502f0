import Core
package import Operators
package import TensorKernels

/// One tensor of a task vector, read from its storage format.
package struct PackedVector: Sendable {
    private let format: StorageFormat
    private let shape: [Int]
    private let parts: Parts
    /// The scale and zero point of a grid over the whole tensor.
    private let whole: (scale: Float, zero: Double)?
    /// Of a sparse vector, the number of kept elements before each tile, and in all.
    private let keptBefore: [Int]

    var isMask: Bool { format == .mask }

    /// - Parameter parts: the tensors of the format, in its order.
    /// - Throws: `badData` when the tensors do not make such a vector; `io` when they cannot be read.
    package init(_ format: StorageFormat, shape: [Int], parts: [StoredTensor], kernels: Kernels) throws {
        let wanted = format.tensors(shape: shape)
        guard zip(wanted, parts).allSatisfy({ $0.dtype == $1.dtype && Shape.count($0.shape) == $1.count }),
            wanted.count == parts.count
        else { throw TesseraError(.badData, "the store's tensors do not make a task vector of the shape \(shape)") }
        self.format = format
        self.shape = shape
        self.parts = Parts(zip(wanted.compactMap(\.part), parts))
        whole = try Self.wholeGrid(of: format, self.parts)
        keptBefore = try Self.keptBefore(format, self.parts.mask, count: Shape.count(shape), kernels)
    }

    private static func wholeGrid(
        of format: StorageFormat, _ parts: Parts
    ) throws -> (scale: Float, zero: Double)? {
        guard format.grid?.granularity == .tensor, let scales = parts.scales, let zeros = parts.zeros else { return nil }
        return try withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { buffer in
            let scale = try scales.withBytes(0..<4, scratch: buffer) { $0.loadUnaligned(as: Float.self) }
            let zero = try zeros.withBytes(0..<8, scratch: buffer) { $0.loadUnaligned(as: Double.self) }
            for part in [scales, zeros] { part.release(0..<part.count) }
            return (scale, zero)
        }
    }

    private static func keptBefore(
        _ format: StorageFormat, _ mask: StoredTensor?, count: Int, _ kernels: Kernels
    ) throws -> [Int] {
        guard case .sparse(let kept, _) = format, let mask else { return [] }
        var before = [0], total = 0
        try withUnsafeTemporaryAllocation(byteCount: FixedTree.tileElements / 8, alignment: 64) { buffer in
            for start in stride(from: 0, to: count, by: FixedTree.tileElements) {
                let elements = min(FixedTree.tileElements, count - start)
                total += try mask.withBytes(start / 8..<start / 8 + (elements + 7) / 8, scratch: buffer) { bytes in
                    bytes.baseAddress.map { kernels.countBits($0, count: elements) } ?? 0
                }
                before.append(total)
            }
        }
        guard total <= kept else {
            throw TesseraError(.badData, "the bitmap in the store keeps \(total) elements, but there are values for \(kept)")
        }
        return before
    }

    /// Decodes the elements of `range`.
    ///
    /// - Parameter scratch: as for `ElementSource.load`.
    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        switch format {
        case .zero, .mask: target.update(repeating: 0, count: range.count)
        case .dense(.raw):
            try part(parts.values).load(range, into: target, scratch: scratch, kernels: kernels)
        case .dense(.grid(let grid)):
            try decode(grid, elements: range, codes: range, into: target, scratch: scratch, kernels: kernels)
        case .sparse(_, let values):
            try loadSparse(range, values, into: target, scratch: scratch, kernels: kernels)
        case .thinned(let grid):
            try loadThinned(range, grid, into: target, scratch: scratch, kernels: kernels)
        case .signs(let scaling):
            try loadSigns(range, scaling, into: target, scratch: scratch, kernels: kernels)
        }
    }

    private func loadSigns(
        _ range: Range<Int>, _ scaling: SignScaling, into target: UnsafeMutablePointer<Float>,
        scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard !range.isEmpty else { return }
        let wanted = scaling.scaleRange(of: range, shape: shape)
        var scales = [Float](repeating: 0, count: wanted.count)
        try scales.withUnsafeMutableBufferPointer { scales in
            guard let start = scales.baseAddress else { return }
            for part in stride(from: 0, to: wanted.count, by: FixedTree.tileElements) {
                let end = min(wanted.count, part + FixedTree.tileElements),
                    own = wanted.lowerBound + part..<wanted.lowerBound + end
                try self.part(parts.scales).load(own, into: start + part, scratch: scratch, kernels: kernels)
            }
        }
        let bytes = range.lowerBound / 8..<(range.upperBound + 7) / 8
        try part(parts.codes).withBytes(bytes, scratch: scratch) { bytes in
            guard let codes = bytes.baseAddress else { return }
            scaling.decode(codes, range, shape: shape, scales: scales, into: target, kernels: kernels)
        }
    }

    private func loadThinned(
        _ range: Range<Int>, _ grid: ThinnedGrid, into target: UnsafeMutablePointer<Float>,
        scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        let thinning = grid.thinning(count: Shape.count(shape)), strata = thinning.strata(of: range)
        try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, strata.count)) { buffer in
            guard let kept = buffer.baseAddress else { return }
            try decode(grid.grid, elements: strata, codes: strata, into: kept, scratch: scratch, kernels: kernels)
            kernels.place(thinning, kept, into: target, range)
        }
    }

    /// Sets the elements of `range` whose bit is not set to zero.
    func applyMask(
        _ range: Range<Int>, to target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try withBits(range, scratch: scratch) { bits, first in
            kernels.apply(bits, first: first, to: target, count: range.count)
        }
    }

    private func loadSparse(
        _ range: Range<Int>, _ values: ValueFormat, into target: UnsafeMutablePointer<Float>,
        scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard !range.isEmpty else { return }
        let tile = range.lowerBound / FixedTree.tileElements
        let start = tile * FixedTree.tileElements
        // The bits before the range in its tile tell where the range's values begin.
        let first = try keptBefore[tile] + countBits(start..<range.lowerBound, scratch: scratch, kernels: kernels)
        let kept = try countBits(range, scratch: scratch, kernels: kernels)
        try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, kept)) { buffer in
            guard let packed = buffer.baseAddress else { return }
            switch values {
            case .raw:
                try part(parts.values).load(first..<first + kept, into: packed, scratch: scratch, kernels: kernels)
            case .grid(let grid):
                try decode(
                    grid, elements: range, codes: first..<first + kept, into: packed, scratch: scratch, kernels: kernels)
            }
            try withBits(range, scratch: scratch) { bits, offset in
                _ = kernels.expand(packed, bits: bits, first: offset, into: target, count: range.count)
            }
        }
    }

    // MARK: Grids

    /// Decodes the codes of the elements, or of the kept elements of a sparse vector. The elements of a thinned one are those
    /// that it keeps.
    private func decode(
        _ grid: Grid, elements: Range<Int>, codes range: Range<Int>, into target: UnsafeMutablePointer<Float>,
        scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        let bytes = range.lowerBound / 8 * grid.bits..<Kernels.streamByteCount(range.upperBound, bits: grid.bits)
        try part(parts.codes).withBytes(bytes.lowerBound..<max(bytes.lowerBound, bytes.upperBound), scratch: scratch) { bytes in
            guard let codes = bytes.baseAddress, !range.isEmpty else { return }
            let first = range.lowerBound % 8
            if let whole {
                return kernels.dequantize(
                    codes, bits: grid.bits, first: first, scale: whole.scale, zero: whole.zero, into: target, count: range.count)
            }
            let rest = UnsafeMutableRawBufferPointer(rebasing: scratch[(bytes.count + 63) / 64 * 64..<scratch.count])
            let points = try points(of: grid, elements, scratch: rest, kernels: kernels)
            if case .group(let length) = grid.granularity, !isSparse {
                // The kernel counts from the beginning of a group; the codes before `range` are not read.
                let before = (range.lowerBound / 8 * 8 - range.lowerBound / length * length) / 8 * grid.bits
                return kernels.dequantize(
                    codes - before, bits: grid.bits, first: range.lowerBound % length, group: length, scales: points.scales,
                    zero: format.isThinned ? Kernels.risingZero(bits: grid.bits) : Kernels.fittedZero(bits: grid.bits),
                    into: target, count: range.count)
            }
            try decodeGroups(grid, codes, first: first, points, of: elements, into: target, scratch: rest, kernels: kernels)
        }
    }

    /// Decodes group by group. In a sparse vector, a group has as many codes as bits are set.
    private func decodeGroups(
        _ grid: Grid, _ codes: UnsafeRawPointer, first: Int, _ points: (scales: [Float], zeros: [UInt8]), of elements: Range<Int>,
        into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        let length = grid.groupLength(in: shape)
        var done = 0
        for (index, group) in (elements.lowerBound / length..<(elements.upperBound - 1) / length + 1).enumerated() {
            let part = elements.clamped(to: group * length..<(group + 1) * length)
            let kept = try isSparse ? countBits(part, scratch: scratch, kernels: kernels) : part.count
            let zero = points.zeros.isEmpty ? Double(Kernels.fittedZero(bits: grid.bits)) : Double(points.zeros[index])
            kernels.dequantize(
                codes, bits: grid.bits, first: first + done, scale: points.scales[index], zero: zero, into: target + done,
                count: kept)
            done += kept
        }
    }

    /// The scales, and the zero points if they are stored, of the groups that the elements lie in.
    private func points(
        of grid: Grid, _ elements: Range<Int>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws -> (scales: [Float], zeros: [UInt8]) {
        let length = grid.groupLength(in: shape)
        let groups = elements.lowerBound / length..<(elements.upperBound - 1) / length + 1
        var scales = [Float](repeating: 0, count: groups.count)
        try scales.withUnsafeMutableBufferPointer { scales in
            guard let start = scales.baseAddress else { return }
            try part(parts.scales).load(groups, into: start, scratch: scratch, kernels: kernels)
        }
        guard let zeros = parts.zeros else { return (scales, []) }
        return (scales, try zeros.withBytes(groups, scratch: scratch) { Array($0) })
    }

    // MARK: Parts

    private var isSparse: Bool { if case .sparse = format { true } else { false } }

    private func countBits(_ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels) throws -> Int {
        guard !range.isEmpty else { return 0 }
        return try withBits(range, scratch: scratch) { bits, first in
            kernels.countBits(bits, count: first + range.count) - kernels.countBits(bits, count: first)
        }
    }

    /// The parts of the format; `nil` for those that it does not have.
    private struct Parts: Sendable {
        private(set) var codes, scales, zeros, values, mask: StoredTensor?

        init(_ parts: some Sequence<(StorageFormat.Part, StoredTensor)>) {
            for (part, tensor) in parts {
                switch part {
                case .codes: codes = tensor
                case .scales: scales = tensor
                case .zeros: zeros = tensor
                case .values: values = tensor
                case .mask: mask = tensor
                }
            }
        }
    }

    /// As `ElementSource.prefetch`.
    func prefetch(_ range: Range<Int>) {
        for (part, stored) in stored(range) { part.prefetch(stored) }
    }

    /// As `ElementSource.release`.
    func release(_ range: Range<Int>) {
        for (part, stored) in stored(range) { part.release(stored) }
    }

    /// The elements of each part that `range` is read from. Of a sparse vector's values, those of all tiles that `range`
    /// overlaps. The scale of a whole tensor is not among them: it was read when the vector was opened.
    private func stored(_ range: Range<Int>) -> [(StoredTensor, Range<Int>)] {
        guard !range.isEmpty else { return [] }
        // The elements that codes and scales count.
        var coded = range
        if case .thinned(let grid) = format { coded = grid.thinning(count: Shape.count(shape)).strata(of: range) }
        var values = coded
        if isSparse {
            let last = (range.upperBound + FixedTree.tileElements - 1) / FixedTree.tileElements
            values = keptBefore[range.lowerBound / FixedTree.tileElements]..<keptBefore[last]
        }
        var stored: [(StoredTensor?, Range<Int>)] = [
            (parts.mask, range.lowerBound / 8..<(range.upperBound + 7) / 8), (parts.values, values),
        ]
        if let grid = format.grid {
            stored.append(
                (parts.codes, values.lowerBound / 8 * grid.bits..<Kernels.streamByteCount(values.upperBound, bits: grid.bits)))
        }
        if let grid = format.grid, whole == nil {
            let length = grid.groupLength(in: shape)
            let groups = coded.lowerBound / length..<(coded.upperBound - 1) / length + 1
            stored += [(parts.scales, groups), (parts.zeros, groups)]
        }
        if case .signs(let scaling) = format {
            stored += [
                (parts.codes, range.lowerBound / 8..<(range.upperBound + 7) / 8),
                (parts.scales, scaling.scaleRange(of: range, shape: shape)),
            ]
        }
        return stored.compactMap { part, range in part.map { ($0, range) } }
    }

    private func part(_ part: StoredTensor?) throws(TesseraError) -> StoredTensor {
        guard let tensor = part else { throw TesseraError(.internal, "a part of the task vector is missing") }
        return tensor
    }

    /// Calls `body` with the byte that has the first element's bit, and the bit's position in the byte.
    private func withBits<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawPointer, Int) throws -> Result
    ) throws -> Result {
        let first = range.lowerBound / 8
        return try part(parts.mask).withBytes(first..<max(first, (range.upperBound + 7) / 8), scratch: scratch) { bytes in
            guard let start = bytes.baseAddress ?? UnsafeRawPointer(scratch.baseAddress) else {
                throw TesseraError(.internal, "no memory to read a bitmap")
            }
            return try body(start, range.lowerBound - first * 8)
        }
    }
}

extension StorageFormat {
    /// The grid of the values, if they are quantized.
    package var grid: Grid? {
        switch self {
        case .dense(.grid(let grid)), .sparse(_, .grid(let grid)): grid
        case .thinned(let thinned): thinned.grid
        default: nil
        }
    }
}
