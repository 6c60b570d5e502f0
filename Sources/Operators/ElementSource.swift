package import Core
package import TensorKernels

/// The elements of one input tensor. Any range can be read, from several threads at the same time.
package protocol ElementSource: Sendable {
    var dtype: DType { get }
    var count: Int { get }

    /// Decodes the elements of `range` to float32.
    ///
    /// - Parameter scratch: eight bytes per element at least.
    func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
        kernels: Kernels) throws

    /// A pointer to the stored bytes of `byteRange`, which counts from the first byte of the tensor. Valid as long as the source.
    /// `nil` if the bytes are not in memory.
    func direct(_ byteRange: Range<Int>) -> UnsafeRawPointer?

    /// Copies the bytes of `byteRange` as they are stored.
    func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws

    // No defaults for these two: a source that wraps others must pass them on.

    /// Hints that the elements of `range` will be read soon.
    func prefetch(_ range: Range<Int>)

    /// Hints that the elements of `range` will probably not be read again. Reading them still works.
    func release(_ range: Range<Int>)
}

extension ElementSource {
    package func direct(_ byteRange: Range<Int>) -> UnsafeRawPointer? { nil }

    /// `copyBytes` for a computed source: rounds the elements to the source's type.
    package func copyRounded(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        let width = dtype.bitWidth / 8, kernels = Kernels.best
        let range = byteRange.lowerBound / width..<byteRange.upperBound / width
        var values = [Float](repeating: 0, count: range.count)
        // 128 bytes more, because parts of a packed vector that are read together are each aligned to 64 bytes.
        try withUnsafeTemporaryAllocation(byteCount: range.count * 8 + 128, alignment: 64) { scratch in
            try values.withUnsafeMutableBufferPointer { values in
                guard let first = values.baseAddress else { return }
                try load(range, into: first, scratch: scratch, kernels: kernels)
                kernels.narrow(first, to: dtype, target, count: range.count)
            }
        }
    }
}

/// A source that is stored as a difference from a base, and can be read as the difference.
package protocol DifferenceSource: ElementSource {
    /// Whether the method takes differences from the same base, so that the base need not be added and subtracted again.
    var isOnMethodsBase: Bool { get }

    /// Decodes the differences of `range` to float32.
    func loadDifference(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
        kernels: Kernels) throws
}

/// A tensor as it is stored in a file.
package struct StoredTensor: ElementSource {
    package let dtype: DType
    package let count: Int
    private let bytes: any ByteSource
    /// The tensor's first byte in `bytes`.
    private let offset: Int

    /// - Throws: `badData` when the tensor does not fit inside `bytes`.
    package init(_ bytes: any ByteSource, offset: Int, dtype: DType, count: Int) throws(TesseraError) {
        let (bits, overflow) = count.multipliedReportingOverflow(by: dtype.bitWidth)
        guard count >= 0, offset >= 0, !overflow, bits % 8 == 0, bits / 8 <= bytes.size - offset else {
            throw TesseraError(
                .badData,
                "a tensor of \(count) \(dtype.rawValue) elements at byte \(offset) does not fit a file of \(bytes.size) bytes")
        }
        self.bytes = bytes
        self.offset = offset
        self.dtype = dtype
        self.count = count
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try bytes.withBytes(place(of: range), scratch: scratch) { raw in
            guard let first = raw.baseAddress else { return }
            kernels.widen(dtype, first, target, count: range.count)
        }
    }

    package func direct(_ byteRange: Range<Int>) -> UnsafeRawPointer? {
        bytes.direct(offset + byteRange.lowerBound..<offset + byteRange.upperBound)
    }

    package func prefetch(_ range: Range<Int>) { bytes.prefetch(place(of: range)) }

    package func release(_ range: Range<Int>) { bytes.release(place(of: range)) }

    /// The range of `bytes` that the elements are stored in.
    private func place(of range: Range<Int>) -> Range<Int> {
        offset + range.lowerBound * dtype.bitWidth / 8..<offset + (range.upperBound * dtype.bitWidth + 7) / 8
    }

    /// Calls `body` with the bytes of `byteRange`, which counts from the first byte of the tensor.
    package func withBytes<Result>(
        _ byteRange: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        guard byteRange.upperBound * 8 <= (count * dtype.bitWidth + 7) / 8 * 8 else {
            throw TesseraError(.badData, "bytes up to \(byteRange.upperBound) lie outside a tensor of \(count) elements")
        }
        return try bytes.withBytes(offset + byteRange.lowerBound..<offset + byteRange.upperBound, scratch: scratch, body)
    }

    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        let buffer = UnsafeMutableRawBufferPointer(start: target, count: byteRange.count)
        try bytes.withBytes(byteRange.lowerBound + offset..<byteRange.upperBound + offset, scratch: buffer) { raw in
            guard let first = raw.baseAddress, first != UnsafeRawPointer(target) else { return }
            target.copyMemory(from: first, byteCount: byteRange.count)
        }
    }
}
