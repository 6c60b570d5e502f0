import Core
import TensorKernels

extension TensorPasses {
    /// Computes and stores all values of the tensor, in one pass over the sources, which must be the last. `values` computes a
    /// tile of float32, and the codec encodes it.
    package func emit(_ values: @escaping TileValues) throws { try emit(1) { tile, _, out in try values(tile, out) } }

    /// As `emit`, for several outputs of the same shape.
    ///
    /// - Parameters:
    ///   - merged: what all outputs have in common. It is computed once, and given to `values` in the buffer for each output.
    ///   - values: gets the number of the output.
    package func emit(
        _ count: Int, merged: TileValues? = nil,
        _ values: @escaping @Sendable (Tile, Int, UnsafeMutablePointer<Float>) throws -> Void
    ) throws {
        let writers = try writers(count) { output in
            { tile, out in
                try merged?(tile, out)
                try values(tile, output, out)
            }
        }
        guard let only = writers.first?.codec.outputs(shape: shape), only.count == 1,
            let blocks = ElementBlocks(of: only[0], count: self.count)
        else {
            for (index, writer) in writers.enumerated() { try writer.emitChunks(isLast: index == count - 1) }
            return
        }
        try forEachPair(of: blocks) { pair in
            let elements = blocks.elements(in: pair.byteRange)
            let kept = try count > 1 ? merged.map { try PairValues(elements, $0, tiles) } : nil
            for (output, writer) in writers.enumerated() {
                try writer.write(pair, of: blocks) { tile, result in
                    guard let kept else { return try writer.values(tile, result) }
                    kept.copy(tile.range, to: result)
                    try values(tile, output, result)
                }
            }
        }
    }

    /// One of several outputs.
    private struct OutputWriter: Sendable {
        /// With the sinks of this output.
        let tensor: TensorPasses
        let codec: any ElementCodec
        let values: TileValues

        func emitChunks(isLast: Bool) throws {
            let outputs = codec.outputs(shape: tensor.shape)
            guard outputs.allSatisfy({ $0.rate.map(\.blockSize) ?? $0.blockSize == $0.blockSize }) else {
                throw TesseraError(.internal, "the codec's blocks are not chunks")
            }
            _ = try tensor.emit(outputs.map(\.rate), terms: 0, isLast: isLast) { tile, buffer, _ in
                let result = tile.scratch(0)
                try values(tile, result)
                try codec.encode(result, of: tile, into: .chunk(buffer))
            }
        }

        func write(_ pair: BlockPair, of blocks: ElementBlocks, _ values: TileValues) throws {
            let step = blocks.byteCount(ofElements: FixedTree.tileElements)
            try tensor.tiles.with { tile in
                try tensor.sinks[0].writeBlocks(pair, step: step) { bytes, target in
                    tile.take(blocks.elements(in: bytes))
                    let result = tile.scratch(0)
                    try values(tile, result)
                    try codec.encode(result, of: tile, into: .block(target))
                }
            }
        }
    }

    private func writers(_ count: Int, _ values: (Int) -> TileValues) throws -> [OutputWriter] {
        guard let codec else { throw TesseraError(.internal, "an operation without a codec stores values") }
        let width = codec.outputs(shape: shape).count
        guard count * width == sinks.count else {
            throw TesseraError(.internal, "\(count) times the codec makes \(width) tensors, the plan has \(sinks.count)")
        }
        return try (0..<count).map { output in
            var tensor = self
            tensor.sinks = Array(sinks[output * width..<(output + 1) * width])
            let own = values(output)
            return OutputWriter(tensor: tensor, codec: try codec.prepared(for: own, in: tensor), values: own)
        }
    }

    /// Whether the codec stores the elements of a source unchanged, so that `emitBytes` may be used.
    package func isStoredAsIs(_ source: Int) -> Bool { codec?.plainType == sources[source].dtype }

    /// Copies the bytes of a source into the output.
    ///
    /// - Throws: `badData` unless `isStoredAsIs(index)`.
    package func emitBytes(ofSource index: Int) throws {
        let source = sources[index]
        guard isStoredAsIs(index), let only = codec?.outputs(shape: shape).first,
            let blocks = ElementBlocks(of: only, count: count)
        else {
            throw TesseraError(.badData, "a tensor of type \(source.dtype.rawValue) cannot be copied into the output")
        }
        guard let sink = sinks.first, sinks.count == 1 else {
            throw TesseraError(.internal, "a copy makes one tensor, the plan has \(sinks.count)")
        }
        try forEachPair(of: blocks) { pair in
            if let bytes = source.direct(pair.byteRange) {
                return try sink.storeBlocks(pair, UnsafeRawBufferPointer(start: bytes, count: pair.byteRange.count))
            }
            try sink.writeBlocks(pair, step: FixedTree.tileElements * 8) { bytes, target in
                try source.copyBytes(bytes, to: target)
            }
        }
    }

    private func forEachPair(of blocks: ElementBlocks, _ body: @escaping @Sendable (BlockPair) throws -> Void) throws {
        try runner.forEach(BlockPair.count(ofBytes: blocks.byteCount, blockSize: blocks.size)) { index in
            let pair = BlockPair(index, ofBytes: blocks.byteCount, blockSize: blocks.size)
            let elements = blocks.elements(in: pair.byteRange)
            readAhead.advance(to: elements.lowerBound)
            try body(pair)
            release(elements)
        }
    }
}

/// What several outputs have in common, for the elements of a pair of blocks.
private final class PairValues: @unchecked Sendable {
    // Unchecked: written while it is made, and only read afterwards.
    private let elements: Range<Int>
    private let buffer: UnsafeMutablePointer<Float>

    init(_ elements: Range<Int>, _ values: TileValues, _ tiles: TilePool) throws {
        self.elements = elements
        buffer = .allocate(capacity: max(1, elements.count))
        try tiles.with { tile in
            for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.tileElements) {
                tile.take(start..<min(elements.upperBound, start + FixedTree.tileElements))
                let result = tile.scratch(0)
                try values(tile, result)
                (buffer + (start - elements.lowerBound)).update(from: result, count: tile.count)
            }
        }
    }

    deinit { buffer.deallocate() }

    func copy(_ range: Range<Int>, to target: UnsafeMutablePointer<Float>) {
        target.update(from: buffer + (range.lowerBound - elements.lowerBound), count: range.count)
    }
}

extension EncodedTensor {
    /// Bytes that the values of a pair of blocks take in float32, if the elements of the output are filled in place.
    func pairValuesByteCount(elements count: Int) -> Int {
        guard let blocks = ElementBlocks(of: self, count: count) else { return 0 }
        return min(count, 2 * blocks.elementsPerBlock) * MemoryLayout<Float>.stride
    }
}

/// The blocks of an output whose elements all take the same number of bits. They are filled in place, without a chunk buffer.
private struct ElementBlocks {
    /// Bytes of a block, and of the whole output.
    let size: Int
    let byteCount: Int
    private let bits: Int
    private let count: Int

    /// - Returns: `nil` for other outputs, and if blocks end within a tile.
    init?(of output: EncodedTensor, count: Int) {
        guard let rate = output.rate, rate.unit == 1, rate.bits.nonzeroBitCount == 1,
            output.blockSize * 8 % (rate.bits * FixedTree.tileElements) == 0
        else { return nil }
        size = output.blockSize
        bits = rate.bits
        self.count = count
        byteCount = rate.byteCount(ofElements: count)
    }

    func byteCount(ofElements elements: Int) -> Int { elements * bits / 8 }

    var elementsPerBlock: Int { size * 8 / bits }

    func elements(in bytes: Range<Int>) -> Range<Int> {
        bytes.lowerBound * 8 / bits..<min(count, bytes.upperBound * 8 / bits)
    }
}
