package import Core

/// Two neighbouring blocks of an output tensor, which are hashed at once, or one.
package struct BlockPair: Sendable {
    /// Of the first block.
    package let index: Int
    /// Of the tensor's bytes.
    package let first: Range<Int>
    /// No longer than the first; empty where there is only one block.
    package let second: Range<Int>

    /// - Parameters:
    ///   - byteRange: of one block, or of both.
    ///   - size: bytes of a block; `nil` for one block.
    package init(index: Int, _ byteRange: Range<Int>, blockSize size: Int? = nil) {
        self.index = index
        first = byteRange.prefix(size ?? byteRange.count)
        second = byteRange.dropFirst(size ?? byteRange.count)
    }

    /// - Parameters:
    ///   - pair: counted from the beginning of the tensor.
    ///   - size: bytes of a block.
    package init(_ pair: Int, ofBytes byteCount: Int, blockSize size: Int) {
        self.init(index: 2 * pair, min(byteCount, 2 * pair * size)..<min(byteCount, 2 * (pair + 1) * size), blockSize: size)
    }

    package var byteRange: Range<Int> { first.lowerBound..<second.upperBound }

    /// Pieces of both blocks, side by side. Those of the second end where it does, or are empty.
    package func pieces(of size: Int) -> some Sequence<(Range<Int>, Range<Int>)> {
        stride(from: 0, to: first.count, by: size).lazy.map { start in
            (first.dropFirst(start).prefix(size), second.dropFirst(start).prefix(size))
        }
    }

    /// A piece's bytes.
    ///
    /// - Parameter bytes: of both blocks, one after the other.
    package func contents(of piece: Range<Int>, in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let start = piece.lowerBound - byteRange.lowerBound
        return UnsafeRawBufferPointer(rebasing: bytes[start..<start + piece.count])
    }

    package static func count(ofBytes byteCount: Int, blockSize: Int) -> Int {
        (TreeDigest.blockCount(ofBytes: byteCount, blockSize: blockSize) + 1) / 2
    }
}

/// Takes the blocks of one output tensor.
package protocol BlockSink: Sendable {
    /// Stores blocks. They are filled in steps, and two of them in turns, so that each step can be hashed while it is in cache.
    ///
    /// - Parameters:
    ///   - step: bytes, a power of two, at most a tile in the widest type; the last step of a block may be shorter.
    ///   - fill: called for each step of a block in order, with the step's range of the tensor's bytes and the buffer to fill.
    func writeBlocks(_ blocks: BlockPair, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void) throws

    /// Stores blocks that are complete.
    ///
    /// - Parameter bytes: of both blocks, one after the other.
    func storeBlocks(_ blocks: BlockPair, _ bytes: UnsafeRawBufferPointer) throws

    /// Stores a block that is complete, and hashed together with one of another output.
    ///
    /// - Parameters:
    ///   - offset: bytes from the beginning of the tensor.
    ///   - digest: SHA-256 of the bytes.
    func storeBlock(_ index: Int, offset: Int, _ bytes: UnsafeRawBufferPointer, digest: Digest) throws
}
