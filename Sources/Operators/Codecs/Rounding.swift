package import Core
import TensorKernels

/// Rounds each value to the output type, to nearest even.
package struct Rounding: ElementCodec {
    package static let name = "round"

    private let dtype: DType

    package init(dtype: DType) { self.dtype = dtype }

    package var plainType: DType? { dtype }

    package func outputs(shape: [Int]) -> [EncodedTensor] {
        let rate = ChunkRate(bits: dtype.bitWidth)
        let blockSize = TreeDigest.pairedBlockSize(
            ofBytes: rate.byteCount(ofElements: Shape.count(shape)), step: rate.byteCount(ofElements: FixedTree.tileElements))
        return [EncodedTensor(dtype: dtype, shape: shape, rate: rate, blockSize: blockSize)]
    }

    package func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) throws {
        guard dtype.isArithmetic else {
            throw TesseraError(.badData, "numbers cannot be stored as \(dtype.rawValue), a type without arithmetic")
        }
        tile.kernels.narrow(values, to: dtype, targets[0], count: tile.count)
    }
}
