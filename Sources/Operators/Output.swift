import Core
import TensorKernels

extension TensorPasses {
    /// Computes and stores all values of the tensor, in one pass over the sources, which must be the last. `values` computes a
    /// tile of float32, and the codec encodes it.
    package func emit(_ values: @escaping TileValues) throws {
        guard let codec = try codec?.prepared(for: values, in: self) else {
            throw TesseraError(.internal, "an operation without a codec stores values")
        }
        let outputs = codec.outputs(shape: shape)
        guard outputs.count == sinks.count else {
            throw TesseraError(.internal, "the codec makes \(outputs.count) tensors, the plan has \(sinks.count)")
        }
        guard let only = outputs.first, let blocks = ElementBlocks(of: only, count: count), outputs.count == 1 else {
            guard outputs.allSatisfy({ $0.rate.map(\.blockSize) ?? $0.blockSize == $0.blockSize }) else {
                throw TesseraError(.internal, "the codec's blocks are not chunks")
            }
            _ = try emit(outputs.map(\.rate), terms: 0) { tile, buffer, _ in
                let result = tile.scratch(0)
                try values(tile, result)
                try codec.encode(result, of: tile, into: .chunk(buffer))
            }
            return
        }
        try forEachBlock(blocks) { sink, index, byteRange in
            try tiles.with { tile in
                try sink.writeBlock(index, byteRange: byteRange, step: blocks.byteCount(ofElements: FixedTree.tileElements)) {
                    bytes, target in
                    tile.take(blocks.elements(in: bytes))
                    let result = tile.scratch(0)
                    try values(tile, result)
                    try codec.encode(result, of: tile, into: .block(target))
                }
            }
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
        try forEachBlock(blocks) { sink, block, byteRange in
            if let bytes = source.direct(byteRange) {
                return try sink.storeBlock(
                    block, offset: byteRange.lowerBound, UnsafeRawBufferPointer(start: bytes, count: byteRange.count))
            }
            try sink.writeBlock(block, byteRange: byteRange, step: FixedTree.tileElements * 8) { bytes, target in
                try source.copyBytes(bytes, to: target)
            }
        }
    }

    private func forEachBlock(
        _ blocks: ElementBlocks, _ body: @escaping @Sendable (any BlockSink, Int, Range<Int>) throws -> Void
    ) throws {
        guard let sink = sinks.first, sinks.count == 1 else {
            throw TesseraError(.internal, "the codec makes one tensor, the plan has \(sinks.count)")
        }
        try runner.forEach(TreeDigest.blockCount(ofBytes: blocks.byteCount, blockSize: blocks.size)) { index in
            let byteRange = index * blocks.size..<min(blocks.byteCount, (index + 1) * blocks.size)
            let elements = blocks.elements(in: byteRange)
            readAhead.advance(to: elements.lowerBound)
            try body(sink, index, byteRange)
            release(elements)
        }
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

    func elements(in bytes: Range<Int>) -> Range<Int> {
        bytes.lowerBound * 8 / bits..<min(count, bytes.upperBound * 8 / bits)
    }
}
