package import Core

/// One of the output tensors that a codec, or a storage format of task vectors, makes of a tensor of values.
package struct EncodedTensor: Sendable, Hashable {
    /// Appended to the tensor's name; may be empty.
    package let suffix: String
    package let dtype: DType
    package let shape: [Int]
    /// The output's size relative to the values; `nil` for an output that `prepared` writes as a whole (`TensorPasses.write`).
    package let rate: ChunkRate?
    /// Bytes.
    package let blockSize: Int

    /// - Parameter blockSize: bytes; if `nil`, those of a chunk. A codec with several outputs needs the latter.
    package init(suffix: String = "", dtype: DType, shape: [Int], rate: ChunkRate?, blockSize: Int? = nil) {
        self.suffix = suffix
        self.dtype = dtype
        self.shape = shape
        self.rate = rate
        self.blockSize = blockSize ?? rate?.blockSize ?? TreeDigest.blockSize
    }

    package var byteCount: Int { Shape.count(shape) * dtype.bitWidth / 8 }

    /// The output's name; `tensor` is the name of the tensor of values.
    package func name(of tensor: String) -> String { tensor + suffix }
}

/// Turns the float32 values of a merge into the bytes that are stored.
///
/// Merge methods do not know how values are stored, and codecs do not know where values come from. A codec is one file in this
/// folder and one line in `ElementCodecs`. The stored bytes depend on the values only.
package protocol ElementCodec: Sendable {
    /// Names the codec in plans.
    static var name: String { get }

    /// - Parameter dtype: the output type of the plan.
    /// - Throws: `badData` for a type that the codec cannot store.
    init(dtype: DType) throws(TesseraError)

    /// The tensors that hold values of that shape.
    func outputs(shape: [Int]) -> [EncodedTensor]

    /// The number of passes over the values in `prepared`.
    var passes: Int { get }

    /// Memory besides the buffers for chunks.
    func memory(shape: [Int]) -> MemoryNeed

    /// The type whose elements the codec stores unchanged, if any: sources of this type may be copied.
    var plainType: DType? { get }

    /// Returns a codec that knows what `encode` needs to know about all values, such as their range, and writes the outputs
    /// without a rate.
    func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> Self

    /// Encodes the current tile.
    ///
    /// - Parameter values: `tile.count` elements. They lie in `tile.scratch(0)`.
    /// - Throws: `badData` for values that the codec cannot store.
    func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) throws
}

extension ElementCodec {
    package var passes: Int { 0 }
    package var plainType: DType? { nil }
    package func memory(shape: [Int]) -> MemoryNeed { MemoryNeed() }
    package func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> Self { self }
}

/// Computes the current tile's values into a float32 buffer. This is what a merge method passes to `TensorPasses.emit`.
package typealias TileValues = @Sendable (Tile, UnsafeMutablePointer<Float>) throws -> Void

/// Where the current tile's bytes go, for each output that has a rate.
package enum TileTargets {
    /// Into the block of the only output.
    case block(UnsafeMutableRawPointer)
    /// Into the chunk of each output.
    case chunk(ChunkBuffer)

    package subscript(output: Int) -> UnsafeMutableRawPointer {
        switch self {
        case .block(let target): target
        case .chunk(let buffer): buffer.place(in: output)
        }
    }
}

/// The codecs that this build knows, by name.
package enum ElementCodecs {
    package static let all: [any ElementCodec.Type] = [Rounding.self]

    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    package static func named(_ name: String) -> (any ElementCodec.Type)? { byName[name] }
}

extension ElementCodec {
    /// The cost of a merge including the codec.
    ///
    /// - Parameter count: how many outputs the merge makes, each of which the codec encodes.
    package func adding(to merge: OperatorCost, shape: [Int], outputs count: Int = 1) -> OperatorCost {
        let outputs = outputs(shape: shape)
        // A plain output needs no chunk buffer.
        let chunks = plainType == nil ? ChunkBuffer.byteCount(outputs.compactMap(\.rate)) : 0
        let elements = Shape.count(shape)
        let kept = count > 1 ? outputs.first?.pairValuesByteCount(elements: elements) ?? 0 : 0
        return merge.adding(
            passes: count * passes, memory: memory(shape: shape) + MemoryNeed(perThread: chunks + kept))
    }
}
