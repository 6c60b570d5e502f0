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
    /// - Returns: the sums.
    package func emit(
        _ rates: [ChunkRate?], terms: Int, isLast: Bool = true,
        _ body: @escaping @Sendable (Tile, ChunkBuffer, UnsafeMutablePointer<Double>) throws -> Void
    ) throws -> [Double] {
        let buffers = Mutex<[ChunkBuffer]>([])
        let tilesPerChunk = ChunkRate.chunk / FixedTree.tileElements
        let shares = Mutex(Array(repeating: 0.0, count: terms * tileCount))
        try runner.forEach((count + ChunkRate.chunk - 1) / ChunkRate.chunk) { chunk in
            let buffer = buffers.withLock { $0.popLast() } ?? ChunkBuffer(rates)
            defer { buffers.withLock { $0.append(buffer) } }
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
            if isLast { release(elements) }
            for (output, rate) in rates.enumerated() {
                guard let rate else { continue }
                try sinks[output].storeBlock(
                    chunk, offset: chunk * rate.blockSize,
                    buffer.bytes(of: output, count: rate.byteCount(ofElements: elements.count)))
            }
        }
        return shares.withLock { shares in
            (0..<terms).map { FixedTree.sum(Array(shares[$0 * tileCount..<($0 + 1) * tileCount])) }
        }
    }

    /// Writes a complete output, in blocks of `TreeDigest.blockSize`.
    package func write(_ bytes: UnsafeRawBufferPointer, to output: Int) throws {
        for (block, start) in stride(from: 0, to: bytes.count, by: TreeDigest.blockSize).enumerated() {
            let end = min(bytes.count, start + TreeDigest.blockSize)
            try sinks[output].storeBlock(block, offset: start, UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
        }
    }

    package func write<Element: BitwiseCopyable>(_ elements: [Element], to output: Int) throws {
        try elements.withUnsafeBytes { try write($0, to: output) }
    }

    /// `TreeDigest.tensor` of a source's bytes as they are stored.
    ///
    /// - Parameter isLast: whether this is the last pass over the source, which releases it.
    package func digest(ofSource index: Int, isLast: Bool) throws -> Digest {
        let source = sources[index], byteCount = source.count * source.dtype.bitWidth / 8
        let count = TreeDigest.blockCount(ofBytes: byteCount)
        let digests = Mutex<[Digest?]>(Array(repeating: nil, count: count))
        let piece = FixedTree.tileElements * 8
        try runner.forEach(count) { block in
            let hash = try SHA256()
            try withUnsafeTemporaryAllocation(byteCount: piece, alignment: 64) { buffer in
                guard let target = buffer.baseAddress else { return }
                let first = block * TreeDigest.blockSize, end = min(byteCount, first + TreeDigest.blockSize)
                let elements = first * 8 / source.dtype.bitWidth..<end * 8 / source.dtype.bitWidth
                source.prefetch(elements)
                for start in stride(from: first, to: end, by: piece) {
                    let range = start..<min(end, start + piece)
                    try source.copyBytes(range, to: target)
                    hash.update(UnsafeRawBufferPointer(start: target, count: range.count))
                }
                if isLast { source.release(elements) }
            }
            let digest = try hash.finalize()
            digests.withLock { $0[block] = digest }
        }
        return try TreeDigest.tensor(blocks: digests.withLock { $0.compactMap(\.self) })
    }
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
