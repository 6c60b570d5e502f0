package import TensorKernels

/// Blocks of consecutive entries of a tensor, of each of which the entries of largest magnitude are kept (n:m sparsity).
package struct EntryBlocks: Sendable, Hashable {
    /// What happens to the last entries of a tensor if they are fewer than a block.
    package enum Tail: String, Sendable, Hashable, Codable, CaseIterable {
        /// They are dropped, as in the script of CABS.
        case drop
        /// `⌈kept · length / size⌉` of them are kept.
        case prorate
    }

    /// Entries that are kept of a block.
    package let kept: Int
    /// Entries of a block; at most `Kernels.blockLimit`.
    package let size: Int
    package let tail: Tail

    package init(kept: Int, size: Int, tail: Tail) {
        self.kept = kept
        self.size = size
        self.tail = tail
    }

    /// The largest number of entries that are kept of `count`.
    package func kept(of count: Int) -> Int { count / size * kept + keptOfTail(length: count % size) }

    private func keptOfTail(length: Int) -> Int { tail == .drop ? 0 : (kept * length + size - 1) / size }

    /// The blocks that elements of a tensor with `count` elements lie in.
    func covering(_ elements: Range<Int>, of count: Int) -> Range<Int> {
        elements.lowerBound / size * size..<min(count, (elements.upperBound + size - 1) / size * size)
    }

    /// Flags the entries to keep with 1. Those that are `taken` are kept only if a block has too few others.
    ///
    /// - Parameter entries: whole blocks, and the tail if it belongs to them.
    package func flag(
        _ entries: UnsafePointer<Float>, taken: UnsafePointer<UInt8>, into flags: UnsafeMutablePointer<UInt8>, count: Int,
        kernels: Kernels
    ) {
        kernels.keepLargest(
            kept, ofEach: size, keptAtEnd: keptOfTail(length: count % size), entries, taken: taken, into: flags, count: count)
    }
}
