import Core
import Glibc
import Operators
package import Planning
import Synchronization
import TensorKernels
import Work

/// The differences between the tensors of two models, bit by bit.
package struct CheckpointComparison: Sendable {
    package struct Difference: Sendable, Encodable {
        package enum Kind: String, Sendable, Encodable {
            /// The values differ.
            case values
            /// Type or shape differ.
            case form
            case onlyFirst, onlySecond
        }

        package let tensor: String
        package let kind: Kind
        /// For people: numbers are rounded.
        package let description: String
        /// The number of elements that differ (bytes, for types without arithmetic).
        package var elements: Int?
        /// Of the tensor.
        package var count: Int?
        /// The largest absolute difference of two elements; `nil` if it is not finite.
        package var largest: Double?
        /// `‖x − y‖ / ‖x‖`; `nil` if it is not finite.
        package var relative: Double?

        package init(
            tensor: String, kind: Kind, description: String, elements: Int? = nil, count: Int? = nil, largest: Double? = nil,
            relative: Double? = nil
        ) {
            self.count = count
            self.tensor = tensor
            self.kind = kind
            self.description = description
            self.elements = elements
            self.largest = largest
            self.relative = relative
        }
    }

    /// Of both models together.
    package let tensors: Int
    /// In natural order of the tensors' names.
    package let differences: [Difference]

    /// A tensor that both models have, with the same type and shape.
    private struct Item: Sendable {
        let name: String
        let dtype: DType
        let shape: [Int]
        let first: SourceReference
        /// Counts files behind those of the first model.
        let second: SourceReference

        var byteCount: Int { Shape.count(shape) * dtype.bitWidth / 8 }
    }

    /// Bytes that are compared at a time. Sums over pieces are added in the order of the pieces.
    private static let piece = 1 << 20

    /// Bytes that a comparison reads of each of the models.
    package static func byteCount(_ first: OpenedModels, _ second: OpenedModels) -> Int {
        common(first, second).items.reduce(0) { $0 + $1.byteCount }
    }

    /// - Parameters:
    ///   - first: one model, as is `second`. Opened by itself, so that its tensors keep their own names.
    ///   - memory: bytes, for everything.
    ///   - progress: called from any thread with the bytes of each piece that was read of each of the models.
    package init(
        _ first: OpenedModels, _ second: OpenedModels, threads: Int, memory: Int,
        progress: @escaping @Sendable (Int) -> Void = { _ in }
    ) async throws {
        let (items, others) = Self.common(first, second)
        let found = try await TensorWalk(threads: threads, memory: memory).run(
            items, of: first.files + second.files, need: Self.need
        ) { item, files, loops in
            do {
                return try Self.difference(item, in: files, loops, progress: progress)
            } catch var error as TesseraError {
                error.tensor = error.tensor ?? item.name
                throw error
            }
        }
        tensors = first.tensorNames.mergedByBytes(second.tensorNames).count
        differences = (others + found.compactMap(\.self)).sorted { $0.tensor.precedesNaturally($1.tensor) }
    }

    private static func common(_ first: OpenedModels, _ second: OpenedModels) -> (items: [Item], others: [Difference]) {
        var items: [Item] = [], others: [Difference] = []
        let names = first.tensorNames.sortedByBytes().mergedByBytes(second.tensorNames.sortedByBytes())
        for name in names {
            switch (first.tensor(named: name, of: 0), second.tensor(named: name, of: 0)) {
            case (let left?, let right?) where left.dtype == right.dtype && left.shape == right.shape:
                var moved = right.source
                moved.renumberFiles { $0 + first.files.count }
                items.append(Item(name: name, dtype: left.dtype, shape: left.shape, first: left.source, second: moved))
            case (let left?, let right?):
                others.append(
                    Difference(
                        tensor: name, kind: .form,
                        description: "\(left.dtype.rawValue) \(left.shape) and \(right.dtype.rawValue) \(right.shape)"))
            case (let left, _):
                others.append(
                    Difference(
                        tensor: name, kind: left == nil ? .onlySecond : .onlyFirst,
                        description: left == nil ? "only in the second" : "only in the first"))
            }
        }
        return (items, others)
    }

    private static func need(_ item: Item) -> MemoryNeed {
        let elements = piece * 8 / max(1, item.dtype.bitWidth)
        return MemoryNeed(
            shared: item.first.memory + item.second.memory + item.byteCount / piece * MemoryLayout<Tally>.stride,
            // The bytes of both, and their values.
            perThread: 2 * piece + 2 * elements * MemoryLayout<Float>.stride)
    }

    private static func difference(
        _ item: Item, in files: [any ByteSource], _ loops: TensorLoops, progress: @escaping @Sendable (Int) -> Void
    ) throws -> Difference? {
        let sources = try [item.first, item.second].open(
            elements: Shape.count(item.shape), base: nil, in: files, kernels: .best)
        let (x, y) = (sources[0], sources[1]), count = (item.byteCount + piece - 1) / piece
        let tallies = Mutex(Array(repeating: Tally(), count: count))
        try loops.runner.forEach(count) { index in
            let range = index * piece..<min(item.byteCount, (index + 1) * piece)
            let tally = try Tally(x, y, range, item.dtype)
            tallies.withLock { $0[index] = tally }
            let elements = range.lowerBound * 8 / item.dtype.bitWidth..<range.upperBound * 8 / item.dtype.bitWidth
            x.release(elements)
            y.release(elements)
            progress(range.count)
        }
        let tally = tallies.withLock { $0.reduce(into: Tally()) { $0.add($1) } }
        guard tally.differing > 0 else { return nil }
        guard item.dtype.isArithmetic else {
            return Difference(
                tensor: item.name, kind: .values, description: "\(tally.differing) bytes differ", elements: tally.differing,
                count: item.byteCount)
        }
        let ratio = (tally.distance / tally.norm).squareRoot(), relative = ratio.isFinite ? ratio : nil
        let share = relative.map { ", \(Quantity.significant($0 * 100)) % of the norm" } ?? ""
        return Difference(
            tensor: item.name, kind: .values,
            description: "\(tally.differing) of \(Shape.count(item.shape)) elements, by at most "
                + "\(Quantity.significant(tally.largest))\(share)",
            elements: tally.differing, count: Shape.count(item.shape),
            largest: tally.largest.isFinite ? tally.largest : nil, relative: relative)
    }

    /// What was found in a piece of a tensor, or in all of it.
    private struct Tally: Sendable {
        var differing = 0
        var largest = 0.0
        /// `Σ(x − y)²` and `Σx²`.
        var distance = 0.0
        var norm = 0.0

        init() {}

        mutating func add(_ other: Tally) {
            differing += other.differing
            largest = largest.isNaN || other.largest.isNaN ? .nan : max(largest, other.largest)
            distance += other.distance
            norm += other.norm
        }

        init(_ x: any ElementSource, _ y: any ElementSource, _ range: Range<Int>, _ dtype: DType) throws {
            try withUnsafeTemporaryAllocation(byteCount: 2 * range.count, alignment: 64) { scratch in
                guard let start = scratch.baseAddress else { return }
                try x.copyBytes(range, to: start)
                try y.copyBytes(range, to: start + range.count)
                let left = UnsafeRawBufferPointer(rebasing: scratch[..<range.count])
                let right = UnsafeRawBufferPointer(rebasing: scratch[range.count...])
                let isSame = memcmp(start, start + range.count, range.count) == 0
                if !dtype.isArithmetic {
                    if !isSame { differing = zip(left, right).reduce(0) { $0 + ($1.0 == $1.1 ? 0 : 1) } }
                } else if dtype == .f64 {
                    add(left.bindMemory(to: Double.self), right.bindMemory(to: Double.self))
                } else {
                    add(left, right, dtype, isSame: isSame)
                }
            }
        }

        private mutating func add(
            _ x: UnsafeRawBufferPointer, _ y: UnsafeRawBufferPointer, _ dtype: DType, isSame: Bool
        ) {
            let count = x.count * 8 / dtype.bitWidth, kernels = Kernels.best
            withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * count) { values in
                guard let left = values.baseAddress, let first = x.baseAddress, let second = y.baseAddress else { return }
                kernels.widen(dtype, first, left, count: count)
                guard !isSame else { return norm = kernels.dot(left, left, count: count) }
                kernels.widen(dtype, second, left + count, count: count)
                add(
                    UnsafeBufferPointer(rebasing: values[..<count]), UnsafeBufferPointer(rebasing: values[count...]))
            }
        }

        private mutating func add<Value: BinaryFloatingPoint>(
            _ x: UnsafeBufferPointer<Value>, _ y: UnsafeBufferPointer<Value>
        ) {
            for index in x.indices {
                let a = Double(x[index]), b = Double(y[index])
                norm += a * a
                guard a.bitPattern != b.bitPattern else { continue }
                let gap = (a - b).magnitude
                differing += 1
                largest = gap.isNaN || largest.isNaN ? .nan : max(largest, gap)
                distance += gap * gap
            }
        }
    }
}
