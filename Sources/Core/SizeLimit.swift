/// Bounds of the sizes that files name, far above any real model: what keeps to them can be added up and multiplied without a
/// check.
package enum SizeLimit {
    /// Bytes of a tensor: 16 TiB, a thousand times the largest there are.
    package static let tensor = 1 << 44
    /// Bytes of a file: 1 PiB.
    package static let file = 1 << 50
    /// Bytes of all files of a job or of a directory: 64 PiB.
    package static let total = 1 << 56
}

extension DType {
    /// Bytes of a tensor of this type, for a shape that a file names.
    ///
    /// - Throws: `badData` for a shape that `Shape.elementCount` refuses, for more than `SizeLimit.tensor` bytes, and for
    ///   elements that do not fill whole bytes.
    package func byteCount(ofShape shape: [Int]) throws(TesseraError) -> Int {
        guard let count = Shape.elementCount(shape), count <= SizeLimit.tensor / 8 else {
            throw TesseraError(.badData, "has the shape \(shape), which is too large")
        }
        guard count * bitWidth % 8 == 0 else {
            throw TesseraError(
                .badData, "has the shape \(shape) of \(bitWidth)-bit elements, which is not a whole number of bytes")
        }
        return count * bitWidth / 8
    }
}
