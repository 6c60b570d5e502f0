import Operators
import TensorKernels

/// Measures the error that a tensor's task vectors would have in each of several formats. A bit budget is divided by these
/// errors.
package struct GridMeasurement: Sendable, Hashable, Codable {
    /// For RTVQ, the formats that the shared vector may have; `zero` for no shared vector.
    package let shared: [StorageFormat]
    /// Whether offsets are taken from an existing shared vector. If so, the last source is the base plus that vector.
    package let sharedIsFrozen: Bool
    /// Formats that need no ranges: groups, and unquantized numbers. Or signs, with no shared vector.
    package let formats: [StorageFormat]

    package init(shared: [StorageFormat], sharedIsFrozen: Bool = false, formats: [StorageFormat]) {
        self.shared = shared
        self.sharedIsFrozen = sharedIsFrozen
        self.formats = formats
    }

    /// The largest number of tiles that are measured, spread evenly over the tensor.
    private static let tileLimit = 256

    /// The largest number of those tiles that are encoded in thinned formats. What their codes lose for an element hardly varies
    /// within a tensor, and a thinned store is to be made in little more time than its models are read.
    private static let thinnedTileLimit = 8

    /// Runs of so many elements in which a vector is zero did not change: rows of an embedding whose tokens no text had. What a
    /// base has there is not what noise in the vector is compared with.
    private static let runLength = 64

    private var fittedTileLimit: Int { formats.contains(where: \.isThinned) ? Self.thinnedTileLimit : Self.tileLimit }

    /// Arithmetic operations of encoding one element. Fitting a group's scale takes several rounds over the group.
    static func operationsPerElement(of format: StorageFormat) -> Double {
        if case .group? = format.grid?.granularity { 64 } else { 8 }
    }

    /// Arithmetic operations for a tensor of `count` elements.
    func operations(count: Int, tasks: Int) -> Double {
        let measured = Double(min(count, fittedTileLimit * FixedTree.tileElements))
        return measured * Double(tasks * max(1, shared.count)) * formats.reduce(0) { $0 + Self.operationsPerElement(of: $1) }
    }

    /// Passes over the tensor.
    var passes: Int { 1 + formats.count { $0.signScaling != nil } }

    func measure(_ tensor: TensorPasses) throws -> [GridErrors] {
        guard formats.allSatisfy({ $0.signScaling == nil }) else { return try measureSigns(tensor) }
        if let found = try measure(tensor, fittedTiles: fittedTileLimit) { return found }
        // The few rows that changed are in other tiles.
        return try measure(tensor, fittedTiles: Self.tileLimit) ?? []
    }

    /// - Parameter fittedTiles: at most so many of the measured tiles are encoded; errors are scaled by the vectors' energies.
    /// - Returns: `nil` if a vector is zero in the encoded tiles alone.
    private func measure(_ tensor: TensorPasses, fittedTiles: Int) throws -> [GridErrors]? {
        let tasks = tensor.taskCount - (sharedIsFrozen ? 1 : 0), width = 4 + shared.count * formats.count
        let sharedCoders = shared.map { FormatCoder($0) }, coders = formats.map { FormatCoder($0) }
        let stride = (tensor.tileCount + Self.tileLimit - 1) / Self.tileLimit
        let fittedStride = max(1, (tensor.tileCount / max(1, stride) + fittedTiles - 1) / fittedTiles)
        let sums = try tensor.sums(tasks * width + 1, isLast: true) { tile, sums in
            let number = tile.range.lowerBound / FixedTree.tileElements
            guard stride <= 1 || number % stride == stride / 2 else { return }
            sums[tasks * width] = Double(tile.count)
            let kernels = tile.kernels, count = tile.count
            let isFitted = number / max(1, stride) % fittedStride == fittedStride / 2
            let base = try Self.squares(ofRuns: tile.source(0), count, kernels)
            for task in 0..<tasks {
                let vector = try tile.taskVector(task + 1), energy = kernels.dot(vector, vector, count: count)
                guard energy.isFinite else { throw NotFinite.error }
                sums[task * width] = energy
                if isFitted { sums[task * width + 1] = energy }
                for (run, square) in base.enumerated() {
                    let own = run * Self.runLength..<min(count, (run + 1) * Self.runLength)
                    guard own.contains(where: { vector[$0] != 0 }) else { continue }
                    sums[task * width + 2] += square
                    sums[task * width + 3] += Double(own.count)
                }
            }
            guard isFitted else { return }
            for (index, coder) in sharedCoders.enumerated() {
                let mean = tile.scratch(0), reference = try reference(coder, tasks: tasks, in: tile)
                let offset = tile.workspace { OffsetBuffer() }.offset
                for task in 0..<tasks {
                    kernels.subtract(try tile.taskVector(task + 1), reference, into: offset, count: count)
                    for (format, coder) in coders.enumerated() {
                        coder.code(offset, of: tile, decoded: mean)
                        sums[task * width + 4 + index * formats.count + format] = kernels.squaredError(offset, mean, count: count)
                    }
                }
            }
        }
        let measured = max(1, sums[tasks * width]), scale = Double(tensor.count) / measured
        var found: [GridErrors] = []
        for task in 0..<tasks {
            let energy = sums[task * width], fitted = sums[task * width + 1]
            guard fitted > 0 || energy == 0 else { return nil }
            let errorScale = fitted == energy ? scale : scale * energy / fitted
            found.append(
                GridErrors(
                    energy: energy * scale, base: sums[task * width + 2] * scale,
                    changed: Double(tensor.count) * (sums[task * width + 3] / measured),
                    errors: shared.indices.map { index in
                        formats.indices.map { sums[task * width + 4 + index * formats.count + $0] * errorScale }
                    }))
        }
        return found
    }

    private static func squares(ofRuns x: UnsafePointer<Float>, _ count: Int, _ kernels: Kernels) -> [Double] {
        Array(unsafeUninitializedCapacity: (count + runLength - 1) / runLength) { squares, filled in
            guard let first = squares.baseAddress else { return }
            kernels.sumsOfSquares(x, group: runLength, into: first, count: count)
            filled = squares.count
        }
    }

    /// The vector that offsets are taken from, as it would be read; in `tile.scratch(1)`.
    private func reference(_ coder: FormatCoder, tasks: Int, in tile: Tile) throws -> UnsafePointer<Float> {
        let mean = tile.scratch(0), reference = tile.scratch(1), kernels = tile.kernels, count = tile.count
        if sharedIsFrozen {
            reference.update(from: try tile.taskVector(tasks + 1), count: count)
        } else if case .zero = coder.format {
            reference.update(repeating: 0, count: count)
        } else {
            mean.update(repeating: 0, count: count)
            for task in 0..<tasks { kernels.add(try tile.taskVector(task + 1), to: mean, count: count) }
            kernels.scale(mean, by: 1 / Float(tasks), into: mean, count: count)
            coder.code(mean, of: tile, decoded: reference)
        }
        return UnsafePointer(reference)
    }
}

extension GridMeasurement {
    /// Signs share scales all over a tensor, so the whole tensor is measured.
    private func measureSigns(_ tensor: TensorPasses) throws -> [GridErrors] {
        let tasks = tensor.taskCount,
            vector = { @Sendable (tile: Tile, task: Int) in UnsafePointer(try tile.taskVector(task + 1)) }
        let sums = try formats.compactMap(\.signScaling).map { try SignSums.find($0, of: tasks, in: tensor, vector) }
        let energies = try tensor.sums(tasks, isLast: true) { tile, energies in
            for task in 0..<tasks {
                let own = try vector(tile, task)
                energies[task] = tile.kernels.dot(own, own, count: tile.count)
                guard energies[task].isFinite else { throw NotFinite.error }
            }
        }
        return energies.enumerated().map { task, energy in
            GridErrors(energy: energy, errors: [sums.map { $0[task].error(energy: energy) }])
        }
    }
}

/// A buffer for an offset from the shared vector.
private final class OffsetBuffer {
    let offset = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)
    deinit { offset.deallocate() }
}
