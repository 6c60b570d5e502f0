package import Core
package import TensorKernels

/// The elements of one input tensor, readable in any range and from several threads at once.
package protocol ElementSource: Sendable {
    var dtype: DType { get }
    var count: Int { get }

    /// Decodes the elements of `range` to float32. `scratch` is large enough for the tile's bytes in any element type.
    func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
        kernels: Kernels) throws

    /// Where the bytes of `byteRange` (counted from the tensor's first byte) lie as they are stored, for as long as the source
    /// does; `nil` when they have to be loaded or copied.
    func direct(_ byteRange: Range<Int>) -> UnsafeRawPointer?

    /// Copies the bytes of `byteRange` as they are stored.
    func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws

    // These two have no default, so that no source forgets the stored bytes that it is made of.

    /// Says that the elements of `range` will be read soon.
    func prefetch(_ range: Range<Int>)

    /// Says that the elements of `range` are unlikely to be read again.
    func release(_ range: Range<Int>)
}

extension ElementSource {
    package func direct(_ byteRange: Range<Int>) -> UnsafeRawPointer? { nil }

    /// `copyBytes` of a source that is computed: its elements, rounded to its type.
    package func copyRounded(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        let width = dtype.bitWidth / 8, kernels = Kernels.best
        let range = byteRange.lowerBound / width..<byteRange.upperBound / width
        var values = [Float](repeating: 0, count: range.count)
        // Of a packed vector, parts that are read together each begin at a multiple of 64 bytes.
        try withUnsafeTemporaryAllocation(byteCount: range.count * 8 + 128, alignment: 64) { scratch in
            try values.withUnsafeMutableBufferPointer { values in
                guard let first = values.baseAddress else { return }
                try load(range, into: first, scratch: scratch, kernels: kernels)
                kernels.narrow(first, to: dtype, target, count: range.count)
            }
        }
    }
}

/// A source that is stored as a base and its difference from the base, and can give the difference alone.
package protocol DifferenceSource: ElementSource {
    /// Whether the base is also the one that the method takes differences from: then nothing need be added and subtracted again.
    var isOnMethodsBase: Bool { get }

    /// Decodes the differences of `range` to float32.
    func loadDifference(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
        kernels: Kernels) throws
}

/// A tensor as it lies in a safetensors part.
package struct StoredTensor: ElementSource {
    package let dtype: DType
    package let count: Int
    private let bytes: any ByteSource
    /// Where the tensor begins in `bytes`.
    private let offset: Int

    /// - Throws: `badData` when the tensor does not lie inside `bytes`, so that reading it never can.
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

    /// Where the bytes of elements lie in `bytes`.
    private func place(of range: Range<Int>) -> Range<Int> {
        offset + range.lowerBound * dtype.bitWidth / 8..<offset + (range.upperBound * dtype.bitWidth + 7) / 8
    }

    /// Calls `body` with the bytes of `byteRange`, counted from the tensor's first one.
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
