package import Core
import Synchronization
import TensorKernels

/// The size of an output relative to its tensor: `bits` for every `unit` elements, packed densely.
package struct ChunkRate: Sendable, Hashable {
    /// Elements; a power of two, at most a tile.
    package let unit: Int
    package let bits: Int

    package init(unit: Int = 1, bits: Int) {
        self.unit = unit
        self.bits = bits
    }

    /// Bytes for `count` elements, rounded up to a whole byte.
    package func byteCount(ofElements count: Int) -> Int { ((count + unit - 1) / unit * bits + 7) / 8 }

    /// Elements of a chunk. A block of an output that is written chunk by chunk holds the bytes of one chunk, so that one pass
    /// over the sources can write all outputs. Four bytes per element make the largest block.
    package static let chunk = TreeDigest.blockSize / MemoryLayout<Float>.stride

    /// Bytes of a block, which holds one chunk.
    package var blockSize: Int { byteCount(ofElements: Self.chunk) }
}

extension TensorPasses {
    /// Writes several outputs in one pass over the sources.
    ///
    /// `body` writes the current tile's bytes of each output and adds the tile's quantities to `terms` float64 sums.
    ///
    /// - Parameters:
    ///   - rates: of the first outputs, in order; `nil` for an output that is not written here.
    ///   - isLast: as of `fold`.
    ///   - digest: is computed on the way.
    /// - Returns: the sums.
    package func emit(
        _ rates: [ChunkRate?], terms: Int, isLast: Bool = true, computing digest: SourceDigest? = nil,
        _ body: @escaping @Sendable (Tile, ChunkBuffer, UnsafeMutablePointer<Double>) throws -> Void
    ) throws -> [Double] {
        let buffers = Mutex<[ChunkBuffer]>([])
        let tilesPerChunk = ChunkRate.chunk / FixedTree.tileElements
        let shares = Mutex(Array(repeating: 0.0, count: terms * tileCount))
        let chunkCount = (count + ChunkRate.chunk - 1) / ChunkRate.chunk, group = digest?.chunksPerBlock ?? 1
        try runner.forEach((chunkCount + group - 1) / group) { index in
            let buffer = buffers.withLock { $0.popLast() } ?? ChunkBuffer(rates), hashes = try SHA256Lanes()
            defer { buffers.withLock { $0.append(buffer) } }
            for chunk in index * group..<min(chunkCount, (index + 1) * group) {
                let first = chunk * ChunkRate.chunk, elements = first..<min(count, first + ChunkRate.chunk)
                try tiles.with { tile in
                    for index in chunk * tilesPerChunk..<min(tileCount, (chunk + 1) * tilesPerChunk) {
                        tile.take(tileRange(index))
                        buffer.element = tile.range.lowerBound - first
                        var share = Array(repeating: 0.0, count: max(1, terms))
                        try share.withUnsafeMutableBufferPointer { share in
                            guard let share = share.baseAddress else { return }
                            try body(tile, buffer, share)
                        }
                        shares.withLock { shares in
                            for term in 0..<terms { shares[term * tileCount + index] = share[term] }
                        }
                    }
                }
                try store(chunk, of: rates, buffer, count: elements.count, hashes, beside: digest?.bytes(of: elements))
                if isLast { release(elements) }
            }
            digest?.note(try hashes.finalize(), ofBlock: index)
        }
        return shares.withLock { shares in
            (0..<terms).map { FixedTree.sum(Array(shares[$0 * tileCount..<($0 + 1) * tileCount])) }
        }
    }

    /// Stores the blocks that make a chunk. They are hashed two at a time, one of them beside the source's bytes.
    private func store(
        _ chunk: Int, of rates: [ChunkRate?], _ buffer: ChunkBuffer, count: Int, _ hashes: borrowing SHA256Lanes,
        beside source: UnsafeRawBufferPointer?
    ) throws {
        let blocks = rates.enumerated().compactMap { output, rate in
            rate.map { (output, $0.blockSize * chunk, buffer.bytes(of: output, count: $0.byteCount(ofElements: count))) }
        }.sorted { $0.2.count > $1.2.count }
        let digests = try hashes.update(source ?? UnsafeRawBufferPointer(start: nil, count: 0), beside: blocks.map(\.2))
        for ((output, offset, bytes), digest) in zip(blocks, digests) {
            try sinks[output].storeBlock(chunk, offset: offset, bytes, digest: digest)
        }
    }

    /// Writes a complete output, in blocks of `TreeDigest.blockSize`.
    package func write(_ bytes: UnsafeRawBufferPointer, to output: Int) throws {
        for index in 0..<BlockPair.count(ofBytes: bytes.count, blockSize: TreeDigest.blockSize) {
            let pair = BlockPair(index, ofBytes: bytes.count, blockSize: TreeDigest.blockSize)
            try sinks[output].storeBlocks(pair, UnsafeRawBufferPointer(rebasing: bytes[pair.byteRange]))
        }
    }

    package func write<Element: BitwiseCopyable>(_ elements: [Element], to output: Int) throws {
        try elements.withUnsafeBytes { try write($0, to: output) }
    }

    /// `TreeDigest.tensor` of a source's bytes as they are stored, by a pass of its own.
    ///
    /// - Parameter isLast: whether this is the last pass over the source, which releases it.
    package func digest(ofSource index: Int, isLast: Bool) throws -> Digest {
        let source = sources[index], byteCount = source.count * source.dtype.bitWidth / 8
        let digests = Mutex(Array(repeating: Digest.none, count: TreeDigest.blockCount(ofBytes: byteCount)))
        try runner.forEach(BlockPair.count(ofBytes: byteCount, blockSize: TreeDigest.blockSize)) { index in
            let pair = BlockPair(index, ofBytes: byteCount, blockSize: TreeDigest.blockSize)
            let bits = source.dtype.bitWidth, bytes = pair.byteRange
            let elements = bytes.lowerBound * 8 / bits..<bytes.upperBound * 8 / bits
            source.prefetch(elements)
            let (first, second) = try hashes(of: pair, in: source)
            if isLast { source.release(elements) }
            digests.withLock { digests in
                digests[pair.index] = first
                if !pair.second.isEmpty { digests[pair.index + 1] = second }
            }
        }
        return try TreeDigest.tensor(blocks: digests.withLock(\.self))
    }

    private func hashes(of pair: BlockPair, in source: any ElementSource) throws -> (Digest, Digest) {
        let hash = try SHA256Pair(), step = FixedTree.tileElements * 8
        try withUnsafeTemporaryAllocation(byteCount: 2 * step, alignment: 64) { buffer in
            func read(_ piece: Range<Int>, to place: Int) throws -> UnsafeRawBufferPointer {
                if let start = source.direct(piece) { return UnsafeRawBufferPointer(start: start, count: piece.count) }
                let target = UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + piece.count])
                if let start = target.baseAddress, !piece.isEmpty { try source.copyBytes(piece, to: start) }
                return UnsafeRawBufferPointer(target)
            }
            for (first, second) in pair.pieces(of: step) { hash.update(try read(first, to: 0), try read(second, to: step)) }
        }
        return try hash.finalize()
    }
}

/// `TreeDigest.tensor` of a source's bytes as they are stored, computed by a pass that writes chunks.
package final class SourceDigest: Sendable {
    private let source: any ElementSource
    fileprivate let chunksPerBlock: Int
    private let blocks: Mutex<[Digest]>

    /// - Returns: `nil` where a block is no whole number of chunks, or the bytes are not in memory: then
    ///   `TensorPasses.digest(ofSource:isLast:)` takes a pass of its own.
    package init?(ofSource index: Int, in tensor: TensorPasses) {
        source = tensor.sources[index]
        let byteCount = source.count * source.dtype.bitWidth / 8
        let elements = TreeDigest.blockSize * 8 / source.dtype.bitWidth
        guard elements.isMultiple(of: ChunkRate.chunk), byteCount > 0, source.direct(0..<byteCount) != nil else { return nil }
        chunksPerBlock = elements / ChunkRate.chunk
        blocks = Mutex(Array(repeating: .none, count: TreeDigest.blockCount(ofBytes: byteCount)))
    }

    fileprivate func bytes(of elements: Range<Int>) -> UnsafeRawBufferPointer? {
        let bits = source.dtype.bitWidth, bytes = elements.lowerBound * bits / 8..<elements.upperBound * bits / 8
        return source.direct(bytes).map { UnsafeRawBufferPointer(start: $0, count: bytes.count) }
    }

    fileprivate func note(_ digest: Digest, ofBlock index: Int) { blocks.withLock { $0[index] = digest } }

    /// The digest, after the pass.
    package func finalize() throws(TesseraError) -> Digest { try TreeDigest.tensor(blocks: blocks.withLock(\.self)) }
}

/// One thread's buffer for a chunk of every output.
package final class ChunkBuffer: @unchecked Sendable {
    // Unchecked: used only by the thread that took it.
    private let rates: [ChunkRate?]
    private let starts: [Int]
    private let slab: UnsafeMutableRawPointer
    /// The first element of the current tile, counted from the beginning of the chunk.
    fileprivate(set) var element = 0

    init(_ rates: [ChunkRate?]) {
        self.rates = rates
        var starts: [Int] = [], size = 0
        for rate in rates {
            starts.append(size)
            size += ((rate?.blockSize ?? 0) + 63) / 64 * 64
        }
        self.starts = starts
        slab = .allocate(byteCount: max(64, size), alignment: 64)
    }

    deinit { slab.deallocate() }

    /// Where the current tile's bytes of an output go.
    package func place(in output: Int) -> UnsafeMutableRawPointer {
        slab + starts[output] + (rates[output]?.byteCount(ofElements: element) ?? 0)
    }

    fileprivate func bytes(of output: Int, count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: slab + starts[output], count: count)
    }

    /// Bytes of a buffer for outputs with these rates.
    package static func byteCount(_ rates: [ChunkRate]) -> Int { rates.reduce(0) { $0 + $1.blockSize } }
}
