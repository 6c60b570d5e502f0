import Core
import Operators
package import Planning
import TensorKernels
import Work

/// Measures how far models moved from their base, tensor by tensor, in one pass over all of them.
///
/// Differences are taken in float32, as merges take them, and added up in float64, in the fixed order of tiles, spans and
/// tensors: the result is the same for any number of threads and any memory.
package struct ModelMeasurement: Sendable {
    /// What was found about one tensor.
    package struct Tensor: Sendable {
        package let name: String
        /// Whether it has more than one dimension, as biases and norms have not.
        package let isMatrix: Bool
        package let changes: ModelChanges
    }

    /// A tensor that is not measured, and why.
    package struct LeftOut: Sendable, Encodable {
        package let tensor: String
        package let reason: String
    }

    package let tensors: [Tensor]
    package let leftOut: [LeftOut]

    /// More models have more pairs than anybody looks at.
    package static let modelLimit = 64

    private struct Item: Sendable {
        let name: String
        let shape: [Int]
        /// The base, then the models.
        let sources: [SourceReference]

        var byteCount: Int { sources.reduce(0) { $0 + $1.byteCount } }
    }

    /// Bytes that a measurement reads.
    package static func byteCount(_ models: OpenedModels) -> Int { items(models).items.reduce(0) { $0 + $1.byteCount } }

    /// - Parameters:
    ///   - models: the base, and the models that are compared with it, at most `modelLimit`.
    ///   - memory: bytes, for everything.
    ///   - progress: called from any thread with the bytes of each tensor that was read.
    /// - Throws: what reading throws, and `usage` when a tensor needs more memory.
    package init(
        _ models: OpenedModels, threads: Int, memory: Int, progress: @escaping @Sendable (Int) -> Void = { _ in }
    ) async throws {
        let (items, leftOut) = Self.items(models)
        tensors = try await TensorWalk(threads: threads, memory: memory).run(items, of: models.files, need: Self.need) {
            item, files, loops in
            do {
                let found = Tensor(
                    name: item.name, isMatrix: item.shape.count > 1, changes: try Self.measure(item, in: files, loops))
                progress(item.byteCount)
                return found
            } catch var error as TesseraError {
                error.tensor = error.tensor ?? item.name
                throw error
            }
        }
        self.leftOut = leftOut
    }

    private static func items(_ models: OpenedModels) -> (items: [Item], leftOut: [LeftOut]) {
        var items: [Item] = [], leftOut: [LeftOut] = []
        for name in models.tensorNames {
            let all = models.references.indices.map { models.tensor(named: name, of: $0) }, found = all.compactMap(\.self)
            if let lacking = all.firstIndex(where: { $0 == nil }) {
                leftOut.append(LeftOut(tensor: name, reason: "missing in \(models.references[lacking])"))
            } else if let other = found.first(where: { !$0.dtype.isArithmetic || $0.isScaled }) {
                leftOut.append(
                    LeftOut(
                        tensor: name,
                        reason: other.isScaled ? "float8 codes that need scales" : "\(other.dtype.rawValue) has no arithmetic"))
            } else if let other = found.firstIndex(where: { $0.shape != found[0].shape }) {
                leftOut.append(
                    LeftOut(
                        tensor: name,
                        reason: "\(found[0].shape) in the base and \(found[other].shape) in \(models.references[other])"
                    ))
            } else {
                items.append(Item(name: name, shape: found[0].shape, sources: found.map(\.source)))
            }
        }
        return (items, leftOut)
    }

    private static func need(_ item: Item) -> MemoryNeed {
        let models = item.sources.count - 1, pairs = models * (models + 1) / 2
        let spans = Shape.count(item.shape) / (FixedTree.tileElements * 64) + 1
        return MemoryNeed(
            shared: 2 * spans * (24 * pairs + 8 * models) + item.sources.reduce(0) { $0 + $1.memory },
            perThread: Tile.byteCount(sources: item.sources.count) + (models + 1) * bitmapBytes)
    }

    private static let bitmapBytes = FixedTree.tileElements / 8

    private static func measure(_ item: Item, in files: [any ByteSource], _ loops: TensorLoops) throws -> ModelChanges {
        let kernels = Kernels.best, models = item.sources.count - 1
        let sources = try item.sources.open(
            elements: Shape.count(item.shape), base: item.sources[0], in: files, kernels: kernels)
        let passes = TensorPasses(
            shape: item.shape, sources: sources, inputs: TensorInputs(count: sources.count, base: 0), kernels: kernels,
            runner: loops.runner, memory: loops.memory, sinks: [])
        let spans = try passes.spans(ModelChanges(models: models), isLast: true) { changes, tile in
            try Self.add(tile, to: &changes)
        }
        return spans.reduce(into: ModelChanges(models: models)) { $0.add($1) }
    }

    private static func add(_ tile: Tile, to changes: inout ModelChanges) throws {
        let kernels = tile.kernels, count = tile.count, models = 0..<changes.models
        let vectors = try models.map { UnsafePointer(try tile.taskVector($0 + 1)) }
        let base = UnsafePointer(try tile.source(0))
        changes.addElements(count, baseSquares: kernels.dot(base, base, count: count))
        // One bitmap for each model, and one for what two have in common.
        withUnsafeTemporaryAllocation(byteCount: (changes.models + 1) * bitmapBytes, alignment: 64) { bitmaps in
            guard let first = bitmaps.baseAddress else { return }
            let common = first + changes.models * bitmapBytes
            for model in models {
                kernels.bits(ofNonzero: vectors[model], into: first + model * bitmapBytes, count: count)
                let range = kernels.range(vectors[model], count: count)
                changes.raiseLargest(
                    of: model, to: range.map { Double(max($0.lowest.magnitude, $0.highest.magnitude)) } ?? .nan)
            }
            for model in models {
                let own = first + model * bitmapBytes, moved = kernels.countBits(own, count: count)
                let square = kernels.dot(vectors[model], vectors[model], count: count)
                changes.addPair(model, model, product: square, moved: moved, agreeing: moved)
                for other in models.dropFirst(model + 1) {
                    let product = kernels.dot(vectors[model], vectors[other], count: count)
                    intersect(own, first + other * bitmapBytes, into: common, count: count)
                    let moved = kernels.countBits(common, count: count)
                    kernels.bits(of: vectors[model], agreeingWith: vectors[other], into: common, count: count)
                    changes.addPair(
                        model, other, product: product, moved: moved, agreeing: kernels.countBits(common, count: count))
                }
            }
        }
    }

    /// Whole words; what lies behind the last bit does not count.
    private static func intersect(
        _ x: UnsafeRawPointer, _ y: UnsafeRawPointer, into target: UnsafeMutableRawPointer, count: Int
    ) {
        for offset in stride(from: 0, to: (count + 7) / 8, by: 8) {
            let bits = x.load(fromByteOffset: offset, as: UInt64.self) & y.load(fromByteOffset: offset, as: UInt64.self)
            target.storeBytes(of: bits, toByteOffset: offset, as: UInt64.self)
        }
    }
}
