import CTensorKernels
package import Core

/// Random words that depend only on where they are used: the same on every worker, thread and SIMD level.
///
/// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). The key is made from the job's seed and
/// the output tensor's name, the counter from the source's index and the element's.
package struct CounterRandom: Sendable, Hashable {
    package let key: UInt64
    /// Distinguishes the sources of a tensor.
    package let stream: UInt32

    package init(key: UInt64, stream: UInt32) {
        self.key = key
        self.stream = stream
    }

    /// The key of the output tensor `tensor` under `seed`: the first eight bytes of a SHA-256.
    package static func key(seed: UInt64, tensor: String) throws(TesseraError) -> UInt64 {
        let seedBytes = (0..<8).map { UInt8(truncatingIfNeeded: seed >> (8 * $0)) }
        let digest = try Digest.sha256(of: seedBytes + Array(tensor.utf8))
        return digest.bytes.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The words of the elements `first`, `first + 1`, ...
    package func draw(first: Int, into words: UnsafeMutablePointer<UInt32>, count: Int, kernels: Kernels) {
        kernels.table.pointee.draw(key, stream, UInt64(first), words, count)
    }

    /// Flags each of the elements `first`, `first + 1`, ...: 1 with the given probability (below 1), which is rounded to 2⁻³²,
    /// else 0.
    package func flag(
        probability: Double, first: Int, _ flags: UnsafeMutablePointer<UInt8>, count: Int, kernels: Kernels
    ) {
        kernels.table.pointee.flag_random(key, stream, UInt64(first), Self.limit(probability), flags, count)
    }

    fileprivate func words(from first: Int) -> tk_random { tk_random(key: key, stream: stream, first: UInt64(first)) }

    /// A random word is below this number with the given probability.
    private static func limit(_ probability: Double) -> UInt32 {
        probability > 0 ? UInt32(exactly: (min(probability, 1) * 0x1p32).rounded(.down)) ?? .max : 0
    }
}

/// One thread's buffers for DELLA's choice in a row.
package final class RankBuffer {
    private let buffer: UnsafeMutablePointer<tk_rank_buffer>
    private let items = ScratchBuffer<UInt64>(), words = ScratchBuffer<UInt32>()

    package init() {
        buffer = .allocate(capacity: 1)
        buffer.initialize(to: tk_rank_buffer())
    }

    deinit { buffer.deallocate() }

    /// The longest row, in elements.
    package static let rowLimit = Int(Int32.max)

    /// Bytes of the buffers for rows of this many elements.
    package static func byteCount(row: Int) -> Int {
        MemoryLayout<tk_rank_buffer>.size + itemCount(row) * MemoryLayout<UInt64>.stride
            + wordCount(row) * MemoryLayout<UInt32>.stride
    }

    private static func itemCount(_ count: Int) -> Int { (17 * count + 31 + 7) / MemoryLayout<UInt64>.stride }
    private static func wordCount(_ count: Int) -> Int { count + 62 }

    /// Chooses from a row. An element is kept with probability `lowest + spread · q`, where `q` is the rank of its magnitude,
    /// from 0 for the smallest to 1; equal magnitudes rank by index. In a row of one element, `q = 1/2`. For zeros the result is
    /// undefined, since it makes no difference.
    ///
    /// - Parameters:
    ///   - first: the index of the row's first element in the tensor.
    ///   - flags: set to 1 for kept elements, else 0.
    package func choose(
        _ row: UnsafePointer<Float>, _ random: CounterRandom, first: Int, lowest: Double, spread: Double,
        flags: UnsafeMutablePointer<UInt8>, count: Int, kernels: Kernels
    ) {
        let words = words.pointer(Self.wordCount(count)), items = items.pointer(Self.itemCount(count))
        withUnsafePointer(to: random.words(from: first)) { random in
            kernels.table.pointee.keep_by_rank(row, random, words, count, lowest, spread, buffer, items, flags)
        }
    }

    /// The same, with given random words.
    package func choose(
        _ row: UnsafePointer<Float>, words: UnsafeMutablePointer<UInt32>, lowest: Double, spread: Double,
        flags: UnsafeMutablePointer<UInt8>, count: Int, kernels: Kernels
    ) {
        let items = items.pointer(Self.itemCount(count))
        kernels.table.pointee.keep_by_rank(row, nil, words, count, lowest, spread, buffer, items, flags)
    }
}
