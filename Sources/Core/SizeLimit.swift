/// Bounds of the sizes that files name, far above any real model: what keeps to them can be added up and multiplied without a check.
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
    /// Dimensions of 0 count as 1 for the limit, so that no product of some of the dimensions overflows either.
    ///
    /// - Throws: `badData` for a negative dimension, for more than `SizeLimit.tensor`, and for elements that do not fill whole bytes.
    package func byteCount(ofShape shape: [Int]) throws(TesseraError) -> Int {
        var bits = bitWidth
        for dimension in shape {
            let (product, overflow) = bits.multipliedReportingOverflow(by: max(1, dimension))
            guard dimension >= 0, !overflow, product / 8 <= SizeLimit.tensor else {
                throw TesseraError(
                    .badData, "has the shape \(shape), which overflows the \(SizeLimit.tensor) bytes that a tensor may have")
            }
            bits = product
        }
        if shape.contains(0) { return 0 }
        guard bits % 8 == 0 else {
            throw TesseraError(
                .badData, "has the shape \(shape) of \(bitWidth)-bit elements, which do not fill whole bytes")
        }
        return bits / 8
    }
}
