package import Core

/// One tensor that a codec stores values in.
package struct EncodedTensor: Sendable, Hashable {
    /// Follows the name of the values' tensor; empty for the tensor of that name.
    package let suffix: String
    package let dtype: DType
    package let shape: [Int]
    /// How the tensor's bytes follow from the elements; `nil` for a tensor that the codec writes at once (`TensorPasses.write`).
    package let rate: ChunkRate?
    /// Bytes.
    package let blockSize: Int

    /// - Parameter blockSize: bytes; those of a chunk if `nil`, which is right for a codec with several outputs.
    package init(suffix: String = "", dtype: DType, shape: [Int], rate: ChunkRate?, blockSize: Int? = nil) {
        self.suffix = suffix
        self.dtype = dtype
        self.shape = shape
        self.rate = rate
        self.blockSize = blockSize ?? rate?.blockSize ?? TreeDigest.blockSize
    }

    package var byteCount: Int { shape.reduce(1, *) * dtype.bitWidth / 8 }
}

/// Turns the float32 values of a merge into the bytes that are stored.
///
/// A merge method computes values and knows nothing of how they are stored; a codec knows nothing of where values come from. A
/// codec is one file in this folder and one line in `ElementCodecs`. Its bytes depend on the values and on nothing else.
package protocol ElementCodec: Sendable {
    /// Names the codec in plans.
    static var name: String { get }

    /// - Parameter dtype: the output type of the plan.
    /// - Throws: `badData` for a type that the codec cannot store.
    init(dtype: DType) throws(TesseraError)

    /// The tensors that hold values of that shape.
    func outputs(shape: [Int]) -> [EncodedTensor]

    /// Passes over the values before the first of them is encoded: those of `prepared`.
    var passes: Int { get }

    /// Bytes beside the buffers for a chunk of every output.
    func memory(shape: [Int]) -> MemoryNeed

    /// The type, if any, that the codec stores as it is: a source of this type may be copied instead of being decoded and
    /// encoded.
    var plainType: DType? { get }

    /// The codec with what it has to know of all values before it can encode the first, such as their range. Writes the outputs
    /// without a rate.
    func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> Self

    /// Encodes the values of the tile in hand.
    ///
    /// - Parameter values: `tile.count` of them, in the tile's first buffer.
    /// - Throws: `badData` for values that the codec cannot store.
    func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) throws
}

extension ElementCodec {
    package var passes: Int { 0 }
    package var plainType: DType? { nil }
    package func memory(shape: [Int]) -> MemoryNeed { MemoryNeed() }
    package func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> Self { self }
}

/// Computes the values of a tile into a float32 buffer: what a merge method gives to `TensorPasses.emit`.
package typealias TileValues = @Sendable (Tile, UnsafeMutablePointer<Float>) throws -> Void

/// Where the bytes of the tile in hand go, for each output with a rate.
package enum TileTargets {
    /// In the block of the only output.
    case block(UnsafeMutableRawPointer)
    /// In the chunks of all outputs.
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
    /// The cost of a merge whose values the codec stores.
    package func adding(to merge: OperatorCost, shape: [Int]) -> OperatorCost {
        let outputs = outputs(shape: shape)
        // A plain output is filled in place.
        let chunks = plainType == nil ? ChunkBuffer.byteCount(outputs.compactMap(\.rate)) : 0
        return merge.adding(passes: passes, memory: memory(shape: shape) + MemoryNeed(perThread: chunks))
    }
}
