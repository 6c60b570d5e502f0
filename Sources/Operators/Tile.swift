import Core
package import TensorKernels

/// One thread's buffers for a tile of every source, and the current tile.
///
/// A tile is `FixedTree.tileElements` consecutive elements; the last tile of a tensor may be shorter. It is the leaf of every
/// reduction, and small enough that all sources of a tile stay in the core's own cache.
package final class Tile {
    package let kernels: Kernels
    /// The elements of the current tile, as flat indices of the tensor.
    package private(set) var range: Range<Int> = 0..<0
    /// The tensor's shape.
    package let shape: [Int]

    private let sources: [any ElementSource]
    private let given: [GivenTensor]
    private let inputs: TensorInputs
    private let readAhead: ReadAhead
    private let slab: UnsafeMutablePointer<Float>
    private let bytes: UnsafeMutableRawBufferPointer
    /// What slot `i` holds: of source `i`, for the current tile.
    private var contents: [Contents]
    /// The sources that are stored as a difference from the method's base.
    private let rebuilt: [(any DifferenceSource)?]
    private var flagBuffer: UnsafeMutablePointer<UInt8>?
    private var attached: [ObjectIdentifier: AnyObject] = [:]

    private enum Contents {
        case nothing, source, taskVector
    }

    /// Slots for a method's own intermediate values.
    private static let extraSlots = 2
    private static let widestElement = 8
    private static let alignment = 64

    init(
        shape: [Int], sources: [any ElementSource], given: [GivenTensor], inputs: TensorInputs, readAhead: ReadAhead,
        kernels: Kernels
    ) {
        self.shape = shape
        self.sources = sources
        self.given = given
        self.inputs = inputs
        self.readAhead = readAhead
        self.kernels = kernels
        let elements = (sources.count + Self.extraSlots) * FixedTree.tileElements
        slab = UnsafeMutableRawPointer.allocate(byteCount: elements * MemoryLayout<Float>.stride, alignment: Self.alignment)
            .bindMemory(to: Float.self, capacity: elements)
        bytes = .allocate(byteCount: FixedTree.tileElements * Self.widestElement, alignment: Self.alignment)
        contents = Array(repeating: .nothing, count: sources.count)
        rebuilt = sources.map { ($0 as? any DifferenceSource).flatMap { $0.isOnMethodsBase ? $0 : nil } }
    }

    deinit {
        slab.deallocate()
        bytes.deallocate()
        flagBuffer?.deallocate()
    }

    /// Bytes of one thread's buffers.
    package static func byteCount(sources: Int) -> Int {
        FixedTree.tileElements * ((sources + extraSlots) * MemoryLayout<Float>.stride + widestElement)
    }

    package func take(_ range: Range<Int>) {
        self.range = range
        readAhead.advance(to: range.lowerBound)
        for index in contents.indices { contents[index] = .nothing }
    }

    package var count: Int { range.count }

    /// Source `index` as float32. It is decoded once per tile: a caller that changes the slot must not ask for the source again.
    package func source(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        let target = slab + index * FixedTree.tileElements
        if contents[index] != .source {
            try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
            contents[index] = .source
        }
        return target
    }

    /// Source `index` as it is stored, if the bytes are in memory, else as float32 in its slot. Must not be called after the slot
    /// was changed.
    func stored(_ index: Int) throws -> StoredVector {
        if contents[index] != .source, let vector = direct(index, range) { return vector }
        return StoredVector(try self.source(index), .f32)
    }

    /// Source `index` minus the base, to be computed while it is used. Must not be called after the slot was changed.
    ///
    /// - Parameter flags: of the elements that are kept; `nil` if all may be.
    func storedTaskVector(
        _ index: Int, base: Int, flags: UnsafePointer<UInt8>? = nil
    ) throws -> Kernels.TaskVector {
        let isDifference = holdsTaskVector(index), base = try stored(base)
        let x = isDifference ? StoredVector(try taskVector(index), .f32) : try stored(index)
        return Kernels.TaskVector(x, base: base, isDifference: isDifference, flags: flags)
    }

    /// Source `index` minus the base, in the slot of the source. It is computed once per tile: later calls return the slot as the
    /// caller left it.
    package func taskVector(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        guard let base = inputs.base else { return try source(index) }
        let target = slab + index * FixedTree.tileElements
        guard contents[index] != .taskVector else { return target }
        if let source = rebuilt[index] {
            try source.loadDifference(range, into: target, scratch: bytes, kernels: kernels)
            contents[index] = .taskVector
            return target
        }
        try kernels.difference(stored(index), stored(base), into: target, count: count)
        contents[index] = .taskVector
        return target
    }

    /// Source `index` minus the base, in the slot of the source. Where the source is the base with a low-rank update, that is the
    /// product of the factors, which has not been rounded among the base's numbers. A tile may be asked for this or for
    /// `taskVector`, not for both.
    func lowRankVector(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        guard let update = sources[index] as? LowRankUpdate, update.isOnMethodsBase else { return try taskVector(index) }
        let target = slab + index * FixedTree.tileElements
        guard contents[index] != .taskVector else { return target }
        target.update(repeating: 0, count: count)
        try update.addProduct(range, to: target, scratch: bytes, kernels: kernels)
        contents[index] = .taskVector
        return target
    }

    /// `target = base + factor · target`, every operation rounded.
    func addBase(_ base: Int, to target: UnsafeMutablePointer<Float>, scaledBy factor: Float) throws {
        kernels.scale(target, by: factor, into: target, count: count)
        kernels.add(try source(base), to: target, count: count)
    }

    /// The sum of the task vectors of some sources, in float64, added up in their order.
    func taskVectorSum(_ sources: [Int]) throws -> [Double] {
        var sums = [Double](repeating: 0, count: count)
        for source in sources {
            let vector = try taskVector(source)
            sums.withUnsafeMutableBufferPointer { sums in
                for index in 0..<count { sums[index] += Double(vector[index]) }
            }
        }
        return sums
    }

    /// Whether source `index` is stored as a difference from the method's base, so that nothing need be subtracted.
    func holdsTaskVector(_ index: Int) -> Bool { rebuilt[index] != nil }

    /// Source `index` minus the base, computed again whatever the slot holds.
    package func difference(_ index: Int, into target: UnsafeMutablePointer<Float>) throws {
        if let source = rebuilt[index] {
            return try source.loadDifference(range, into: target, scratch: bytes, kernels: kernels)
        }
        try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
        guard let base = inputs.base else { return }
        kernels.difference(StoredVector(target, .f32), try stored(base), into: target, count: count)
    }

    /// A given tensor of the tensor's own shape as float32, in `scratch(1)`.
    func given(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        let target = scratch(1)
        try given[index].tensor.load(range, into: target, scratch: bytes, kernels: kernels)
        return target
    }

    /// The integers of a given tensor of the tensor's own shape.
    func givenIntegers(_ index: Int) throws -> [Int] { try given[index].integers(range) }

    /// Decodes source `index` into a method's own memory.
    package func load(_ index: Int, into target: UnsafeMutablePointer<Float>) throws {
        try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
    }

    /// A flag for each element of source `index`.
    func flags(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        let buffer = flagBuffer ?? .allocate(capacity: sources.count * FixedTree.tileElements)
        flagBuffer = buffer
        return buffer + index * FixedTree.tileElements
    }

    /// A buffer for a method's own values. There are two: `index` is 0 or 1.
    package func scratch(_ index: Int) -> UnsafeMutablePointer<Float> {
        slab + (sources.count + index) * FixedTree.tileElements
    }

    /// Loads elements of a task vector from anywhere in the tensor into a method's own buffer. Overwrites `scratch(1)`. The slots
    /// must not have been changed.
    func loadTaskVector(_ index: Int, _ elements: Range<Int>, into target: UnsafeMutablePointer<Float>) throws {
        guard let base = inputs.base else { throw TesseraError(.internal, "a task vector without a base") }
        if let source = rebuilt[index] {
            for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.tileElements) {
                let piece = start..<min(elements.upperBound, start + FixedTree.tileElements)
                try source.loadDifference(
                    piece, into: target + (start - elements.lowerBound), scratch: bytes, kernels: kernels)
            }
            return
        }
        if elements.lowerBound >= range.lowerBound, elements.upperBound <= range.upperBound {
            let offset = elements.lowerBound - range.lowerBound
            let x = try stored(index).advanced(by: offset), b = try stored(base).advanced(by: offset)
            return kernels.difference(x, b, into: target, count: elements.count)
        }
        if let x = direct(index, elements), let b = direct(base, elements) {
            return kernels.difference(x, b, into: target, count: elements.count)
        }
        for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.tileElements) {
            let piece = start..<min(elements.upperBound, start + FixedTree.tileElements)
            let own = target + (start - elements.lowerBound)
            try sources[index].load(piece, into: own, scratch: bytes, kernels: kernels)
            try sources[base].load(piece, into: scratch(1), scratch: bytes, kernels: kernels)
            kernels.subtract(own, scratch(1), into: own, count: piece.count)
        }
    }

    private func direct(_ index: Int, _ elements: Range<Int>) -> StoredVector? {
        let source = sources[index]
        guard source.dtype.isArithmetic else { return nil }
        let width = source.dtype.bitWidth / 8
        return source.direct(elements.lowerBound * width..<elements.upperBound * width).map { StoredVector($0, source.dtype) }
    }

    /// A method's own buffer in this tile, made at the first call and kept for later passes. Results must not depend on what it
    /// held before.
    package func workspace<Workspace: AnyObject>(_ make: () -> Workspace) -> Workspace {
        if let workspace = attached[ObjectIdentifier(Workspace.self)] as? Workspace { return workspace }
        let workspace = make()
        attached[ObjectIdentifier(Workspace.self)] = workspace
        return workspace
    }
}
