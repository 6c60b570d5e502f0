import Core
package import TensorKernels

/// One thread's place of work: float32 buffer for a tile of every source, and the tile that is in hand.
///
/// A tile is `FixedTree.tileElements` consecutive elements (the last one of a tensor may be shorter): few enough that all
/// sources of it stay in the core's own cache while a method works on them, and the leaf of every reduction.
package final class Tile {
    package let kernels: Kernels
    /// The elements in hand, as flat indices of the tensor.
    package private(set) var range: Range<Int> = 0..<0
    /// The tensor's shape.
    package let shape: [Int]

    private let sources: [any ElementSource]
    private let inputs: TensorInputs
    private let readAhead: ReadAhead
    private let slab: UnsafeMutablePointer<Float>
    private let bytes: UnsafeMutableRawBufferPointer
    /// What slot `i` holds of source `i` for the tile in hand.
    private var contents: [Contents]
    /// The sources that are the method's base with a task vector added.
    private let rebuilt: [(any DifferenceSource)?]
    private var flagBuffer: UnsafeMutablePointer<UInt8>?
    private var attached: [ObjectIdentifier: AnyObject] = [:]

    private enum Contents {
        case nothing, source, taskVector
    }

    /// Slots beyond the sources that a method may use for its own intermediate values.
    private static let extraSlots = 2
    private static let widestElement = 8
    private static let alignment = 64

    init(shape: [Int], sources: [any ElementSource], inputs: TensorInputs, readAhead: ReadAhead, kernels: Kernels) {
        self.shape = shape
        self.sources = sources
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

    /// Bytes that one tile takes for a tensor with that many sources.
    package static func byteCount(sources: Int) -> Int {
        FixedTree.tileElements * ((sources + extraSlots) * MemoryLayout<Float>.stride + widestElement)
    }

    package func take(_ range: Range<Int>) {
        self.range = range
        readAhead.advance(to: range.lowerBound)
        for index in contents.indices { contents[index] = .nothing }
    }

    package var count: Int { range.count }

    /// The tile of source `index` as float32. Decoded once a tile: whoever changes it must not ask for it again.
    package func source(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        let target = slab + index * FixedTree.tileElements
        if contents[index] != .source {
            try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
            contents[index] = .source
        }
        return target
    }

    /// The tile of source `index` as it is stored where it lies in memory, else as float32 in its slot. Not to be asked for of a
    /// source whose slot was changed.
    func stored(_ index: Int) throws -> StoredVector {
        if contents[index] != .source, let vector = direct(index, range) { return vector }
        return StoredVector(try self.source(index), .f32)
    }

    /// Source `index` minus the base, in the slot of the source. Made once a tile: whoever changes it finds it changed.
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

    /// Whether source `index` has its difference from the method's base at hand, and need not be made from it.
    func holdsTaskVector(_ index: Int) -> Bool { rebuilt[index] != nil }

    /// Source `index` minus the base, made anew whatever has become of the source's slot.
    package func difference(_ index: Int, into target: UnsafeMutablePointer<Float>) throws {
        if let source = rebuilt[index] {
            return try source.loadDifference(range, into: target, scratch: bytes, kernels: kernels)
        }
        try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
        guard let base = inputs.base else { return }
        kernels.difference(StoredVector(target, .f32), try stored(base), into: target, count: count)
    }

    /// The tile of source `index` as float32, decoded into a method's own memory.
    package func load(_ index: Int, into target: UnsafeMutablePointer<Float>) throws {
        try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
    }

    /// Buffer for a flag for each element of source `index`.
    func flags(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        let buffer = flagBuffer ?? .allocate(capacity: sources.count * FixedTree.tileElements)
        flagBuffer = buffer
        return buffer + index * FixedTree.tileElements
    }

    /// Buffer for a method's own values, 0 or 1.
    package func scratch(_ index: Int) -> UnsafeMutablePointer<Float> {
        slab + (sources.count + index) * FixedTree.tileElements
    }

    /// Elements of a task vector anywhere in the tensor, loaded into a method's own buffer. Overwrites `scratch(1)`. The slots of
    /// the tile in hand must hold what was loaded into them.
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

    /// The method's own buffer in this place of work, made when it is first asked for. It stays for the tensor's later passes, so
    /// nothing in it may decide a result.
    package func workspace<Workspace: AnyObject>(_ make: () -> Workspace) -> Workspace {
        if let workspace = attached[ObjectIdentifier(Workspace.self)] as? Workspace { return workspace }
        let workspace = make()
        attached[ObjectIdentifier(Workspace.self)] = workspace
        return workspace
    }
}
