import Core
package import TensorKernels

/// One thread's place of work: float32 room for a grain of every source, and the grain that is in hand.
///
/// A grain is `FixedTree.blockElements` consecutive elements (the last one of a tensor may be shorter): few enough that all
/// sources of it stay in the core's own cache while a method works on them, and the leaf of every reduction.
package final class Grain {
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
    /// What slot `i` holds of source `i` for the grain in hand.
    private var contents: [Contents]
    /// The sources that are the method's base with a task vector added.
    private let rebuilt: [(any DifferenceSource)?]
    private var flagRoom: UnsafeMutablePointer<UInt8>?
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
        let elements = (sources.count + Self.extraSlots) * FixedTree.blockElements
        slab = UnsafeMutableRawPointer.allocate(byteCount: elements * MemoryLayout<Float>.stride, alignment: Self.alignment)
            .bindMemory(to: Float.self, capacity: elements)
        bytes = .allocate(byteCount: FixedTree.blockElements * Self.widestElement, alignment: Self.alignment)
        contents = Array(repeating: .nothing, count: sources.count)
        rebuilt = sources.map { ($0 as? any DifferenceSource).flatMap { $0.isOnMethodsBase ? $0 : nil } }
    }

    deinit {
        slab.deallocate()
        bytes.deallocate()
        flagRoom?.deallocate()
    }

    /// Bytes that one grain takes for a tensor with that many sources.
    package static func byteCount(sources: Int) -> Int {
        FixedTree.blockElements * ((sources + extraSlots) * MemoryLayout<Float>.stride + widestElement)
    }

    package func take(_ range: Range<Int>) {
        self.range = range
        readAhead.advance(to: range.lowerBound)
        for index in contents.indices { contents[index] = .nothing }
    }

    package var count: Int { range.count }

    /// The grain of source `index` as float32. Decoded once a grain: whoever changes it must not ask for it again.
    package func source(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        let target = slab + index * FixedTree.blockElements
        if contents[index] != .source {
            try sources[index].load(range, into: target, scratch: bytes, kernels: kernels)
            contents[index] = .source
        }
        return target
    }

    /// The grain of source `index` as it is stored where it lies in memory, else as float32 in its slot. Not to be asked for of a source
    /// whose slot was changed.
    func stored(_ index: Int) throws -> StoredVector {
        if contents[index] != .source, let vector = direct(index, range) { return vector }
        return StoredVector(try self.source(index), .f32)
    }

    /// Source `index` minus the base, in the slot of the source. Made once a grain: whoever changes it finds it changed.
    package func taskVector(_ index: Int) throws -> UnsafeMutablePointer<Float> {
        guard let base = inputs.base else { return try source(index) }
        let target = slab + index * FixedTree.blockElements
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

    /// Room for a flag for each element of source `index`.
    func flags(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        let room = flagRoom ?? .allocate(capacity: sources.count * FixedTree.blockElements)
        flagRoom = room
        return room + index * FixedTree.blockElements
    }

    /// Room for a method's own values, 0 or 1.
    package func scratch(_ index: Int) -> UnsafeMutablePointer<Float> {
        slab + (sources.count + index) * FixedTree.blockElements
    }

    /// Elements of a task vector anywhere in the tensor, loaded into a method's own room. Overwrites `scratch(1)`. The slots of the grain in hand
    /// must hold what was loaded into them.
    func loadTaskVector(_ index: Int, _ elements: Range<Int>, into target: UnsafeMutablePointer<Float>) throws {
        guard let base = inputs.base else { throw TesseraError(.internal, "a task vector without a base") }
        if let source = rebuilt[index] {
            for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.blockElements) {
                let stretch = start..<min(elements.upperBound, start + FixedTree.blockElements)
                try source.loadDifference(
                    stretch, into: target + (start - elements.lowerBound), scratch: bytes, kernels: kernels)
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
        for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.blockElements) {
            let stretch = start..<min(elements.upperBound, start + FixedTree.blockElements)
            let own = target + (start - elements.lowerBound)
            try sources[index].load(stretch, into: own, scratch: bytes, kernels: kernels)
            try sources[base].load(stretch, into: scratch(1), scratch: bytes, kernels: kernels)
            kernels.subtract(own, scratch(1), into: own, count: stretch.count)
        }
    }

    private func direct(_ index: Int, _ elements: Range<Int>) -> StoredVector? {
        let source = sources[index]
        guard source.dtype.isArithmetic else { return nil }
        let width = source.dtype.bitWidth / 8
        return source.direct(elements.lowerBound * width..<elements.upperBound * width).map { StoredVector($0, source.dtype) }
    }

    /// The method's own room in this place of work, made when it is first asked for. It stays for the tensor's later passes, so
    /// nothing in it may decide a result.
    package func workspace<Workspace: AnyObject>(_ make: () -> Workspace) -> Workspace {
        if let workspace = attached[ObjectIdentifier(Workspace.self)] as? Workspace { return workspace }
        let workspace = make()
        attached[ObjectIdentifier(Workspace.self)] = workspace
        return workspace
    }
}
