package import Core
import Operators
import Synchronization
import TaskVectors
package import TensorKernels
package import Work

/// Receives the finished blocks of a shard, from several threads at once.
package protocol ShardOutput: Sendable {
    /// The preferred size of a piece, in bytes: a multiple of every step of `BlockSink.writeBlocks`, at most a block.
    var pieceSize: Int { get }

    /// Whether the output computes the digests of blocks, so that nobody else has to.
    var computesDigests: Bool { get }

    /// Stores `bytes`, a piece or the rest of a block, at byte `offset` of the shard's output tensor `tensor`. May block; throws
    /// if the bytes cannot be stored.
    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws

    /// Stores bytes that `fill` writes. `fill` reports its progress, so that written bytes can be processed while they are in
    /// cache.
    func store(
        byteCount: Int, tensor: Int, offset: Int,
        fill: (UnsafeMutableRawPointer, _ filled: (Int) throws -> Void) throws -> Void) throws

    /// Called once, after all blocks of the shard are stored.
    func finish() throws
}

extension ShardOutput {
    package var computesDigests: Bool { false }

    /// Fills a buffer of its own, for outputs that have none to fill in place.
    package func store(
        byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
    ) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        defer { buffer.deallocate() }
        guard let start = buffer.baseAddress else { return }
        try fill(start) { _ in }
        try store(UnsafeRawBufferPointer(buffer), tensor: tensor, offset: offset)
    }
}

/// Opens the input files of shards.
package protocol InputProvider: Sendable {
    /// Opens `file` and checks that it is the planned one.
    func open(_ file: InputFile) throws -> any ByteSource
}

/// The progress of a shard, read by heartbeats while the shard runs.
package final class ShardProgress: Sendable {
    private let done = Atomic(0)
    private let cancelled = Atomic(false)

    package init() {}

    /// Finished bytes, as `TensorWork.progressByteCount` counts them.
    package var bytesDone: Int { done.load(ordering: .relaxed) }
    package var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    package func cancel() { cancelled.store(true, ordering: .relaxed) }
    func add(_ bytes: Int) { done.wrappingAdd(bytes, ordering: .relaxed) }
}

/// Computes shards: reads sources, runs operations, writes blocks.
package struct ShardExecutor: Sendable {
    private let pool: ComputePool
    private let inputs: any InputProvider
    private let kernels: Kernels

    package init(pool: ComputePool, inputs: any InputProvider, kernels: Kernels = .best) {
        self.pool = pool
        self.inputs = inputs
        self.kernels = kernels
    }

    /// Computes the shard on the pool.
    ///
    /// - Returns: the digests of all blocks, unless the output computes them, and the statistics.
    /// - Throws: `TesseraError` naming the tensor or the input that changed while it was read, or `CancellationError` once
    ///   `progress` was cancelled.
    package func run(_ work: ShardWork, output: any ShardOutput, progress: ShardProgress) async throws -> ShardResult {
        var shard = ShardAtWork(hasDigests: !output.computesDigests)
        while true {
            shard = try await pool.run { [shard] in try advance(shard, of: work, output: output, progress: progress) }
            guard let missing = shard.missing else { return shard.result }
            shard.memory = await pool.memory.reserveWhenFree(missing)
        }
    }

    /// The state of the loop over a shard's tensors.
    private struct ShardAtWork: Sendable {
        /// Whether the result has the digests of blocks.
        let hasDigests: Bool
        /// The inputs, open from the first tensor to the last: all of a shard is made of one version of each.
        var files: [any ByteSource]?
        var finishedTensors = 0
        var digests: [[Digest]] = []
        var statistics: [TensorStatistics?] = []
        /// The reservation for the next tensor.
        var memory: MemoryReservation?
        /// Bytes of memory that the next tensor needs before it can start.
        var missing: Int?

        var result: ShardResult {
            ShardResult(digests: hasDigests ? digests : [], statistics: statistics.contains { $0 != nil } ? statistics : [])
        }
    }

    /// Computes tensors one by one until memory does not suffice for the next one, or none is left.
    private func advance(
        _ shard: ShardAtWork, of work: ShardWork, output: any ShardOutput, progress: ShardProgress
    ) throws -> ShardAtWork {
        var shard = shard
        shard.missing = nil
        defer { shard.memory?.release() }
        let files = try shard.files ?? work.files.map(inputs.open)
        shard.files = files
        var upcoming: [any ElementSource]?
        for (index, tensor) in work.tensors.enumerated().dropFirst(shard.finishedTensors) {
            do {
                if shard.memory == nil {
                    let bytes = try memory(for: tensor)
                    shard.memory = pool.memory.reserve(bytes)
                    guard shard.memory != nil else {
                        shard.missing = bytes
                        return shard
                    }
                }
                // Before anything is made as large as the outputs: the coordinator may be a stranger.
                try tensor.checkOutputs()
                let sources = try upcoming ?? tensor.openSources(in: files, kernels: kernels)
                let sinks = tensor.outputs.enumerated().map { index, tensor in
                    HashingSink(
                        blockCount: tensor.blockCount, tensor: shard.digests.count + index, output: output, progress: progress)
                }
                upcoming = index + 1 < work.tensors.count ? prepared(work.tensors[index + 1], in: files) : nil
                shard.statistics.append(
                    try compute(
                        tensor, sources: sources, given: tensor.openGiven(in: files), sinks: sinks, progress: progress))
                shard.digests += try sinks.map { try $0.finish() }
                if sinks.isEmpty { progress.add(tensor.progressByteCount) }
            } catch var error as TesseraError {
                error.tensor = error.tensor ?? tensor.name
                throw error
            }
            shard.memory?.release()
            shard.memory = nil
            shard.finishedTensors += 1
        }
        for file in files { try file.checkUnchanged() }
        try output.finish()
        return shard
    }

    /// Bytes of memory that all threads together need for the tensor.
    private func memory(for tensor: TensorWork) throws(TesseraError) -> Int {
        let tiles = (tensor.elementCount + FixedTree.tileElements - 1) / FixedTree.tileElements
        let bytes = try tensor.cost().memory.byteCount(threads: max(1, min(pool.threads, tiles)))
        guard bytes <= pool.memory.total else {
            throw TesseraError(
                .usage, "needs \(bytes) bytes of memory, more than the \(pool.memory.total) that there are for it",
                advice: "raise --memory, or take fewer --threads")
        }
        return bytes
    }

    /// The sources of the next tensor, whose first bytes are prefetched; `nil` if they cannot be opened, which is reported when
    /// the tensor is computed.
    private func prepared(_ tensor: TensorWork, in files: [any ByteSource]) -> [any ElementSource]? {
        guard let sources = try? tensor.openSources(in: files, kernels: kernels) else { return nil }
        ReadAhead(sources, count: tensor.elementCount).advance(to: 0)
        return sources
    }

    /// What a method reported.
    ///
    /// - Throws: `badData` for numbers that are not finite.
    private func statistics(of passes: TensorPasses) throws(TesseraError) -> TensorStatistics? {
        guard let found = passes.statistics else { return nil }
        guard found.numbers.values.allSatisfy({ $0.allSatisfy(\.isFinite) }) else {
            throw TesseraError(
                .badData, "what the method found out about the tensor is not finite",
                advice: "look for values that are infinite or not a number in the models")
        }
        return .merge(found)
    }

    private func compute(
        _ tensor: TensorWork, sources: [any ElementSource], given: [GivenTensor], sinks: [HashingSink], progress: ShardProgress
    ) throws -> TensorStatistics? {
        func passes(_ inputs: TensorInputs, codec: (any ElementCodec)? = nil) throws(TesseraError) -> TensorPasses {
            guard inputs.base.map(sources.indices.contains) ?? true, !sources.isEmpty else {
                throw TesseraError(.badData, "the shard names a base that is none of its \(sources.count) sources")
            }
            return TensorPasses(
                shape: tensor.shape, codec: codec, sources: sources, given: given, inputs: inputs,
                kernels: kernels, runner: pool.loops { progress.isCancelled }, memory: pool.memory,
                matrixElements: matrixElements, sinks: sinks)
        }
        let matrixElements = try tensor.cost().matrixElements
        switch tensor.operation {
        case .merge(let merge):
            let passes = try passes(merge.inputs(tensor.sources, given: tensor.given), codec: merge.codec.codec())
            try merge.method(tensor.sources, given: tensor.given).merge(passes)
            return try statistics(of: passes)
        case .factor(let merge, let factors):
            let passes = try passes(merge.inputs(tensor.sources, given: tensor.given))
            try merge.factoredMethod(tensor.sources, given: tensor.given).emitFactors(
                passes, as: factors, dtype: merge.codec.dtype)
            return try statistics(of: passes)
        case .measure(let merge, let stage):
            let passes = try passes(merge.inputs(tensor.sources, given: tensor.given))
            try merge.method(tensor.sources, given: tensor.given).measure(stage, in: passes)
            return try statistics(of: passes)
        case .encode(let encoding):
            return .encoding(try encoding.encode(passes(TensorInputs(count: sources.count, base: 0))))
        }
    }
}

/// Passes blocks on to the output. Unless the output computes digests, each piece of a block is hashed while it is in cache, two
/// blocks at once.
private final class HashingSink: BlockSink {
    /// `Digest.none` for a block whose digest the output computes.
    private let digests: Mutex<[Digest?]>
    private let tensor: Int
    private let output: any ShardOutput
    private let progress: ShardProgress

    init(blockCount: Int, tensor: Int, output: any ShardOutput, progress: ShardProgress) {
        digests = Mutex(Array(repeating: nil, count: blockCount))
        self.tensor = tensor
        self.output = output
        self.progress = progress
    }

    func writeBlocks(_ blocks: BlockPair, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void) throws {
        let hash = try newHash()
        for (first, second) in blocks.pieces(of: output.pieceSize) {
            /// Fills a step of a piece; there may be nothing left of it.
            func filled(_ piece: Range<Int>, from start: Int, _ target: UnsafeMutableRawPointer) throws -> UnsafeRawBufferPointer
            {
                let range = piece.dropFirst(start).prefix(step)
                if !range.isEmpty { try fill(range, target + start) }
                return UnsafeRawBufferPointer(start: target + start, count: range.count)
            }
            let starts = stride(from: 0, to: first.count, by: step)
            if areOnePiece(first, second) {
                let count = first.count + second.count
                try output.store(byteCount: count, tensor: tensor, offset: first.lowerBound) { target, report in
                    for start in starts {
                        let one = try filled(first, from: start, target)
                        let two = try filled(second, from: start, target + first.count)
                        hash?.update(one, two)
                        try report(start + one.count == first.count ? count : start + one.count)
                    }
                }
                continue
            }
            try output.store(byteCount: first.count, tensor: tensor, offset: first.lowerBound) { target, report in
                try output.store(byteCount: second.count, tensor: tensor, offset: second.lowerBound) { other, otherReport in
                    for start in starts {
                        let one = try filled(first, from: start, target)
                        let two = try filled(second, from: start, other)
                        hash?.update(one, two)
                        try report(start + one.count)
                        try otherReport(min(second.count, start + one.count))
                    }
                }
            }
        }
        try note(hash?.finalize() ?? (.none, .none), of: blocks)
    }

    private func newHash() throws -> SHA256Pair? { output.computesDigests ? nil : try SHA256Pair() }

    private func areOnePiece(_ first: Range<Int>, _ second: Range<Int>) -> Bool {
        second.isEmpty || (first.upperBound == second.lowerBound && first.count + second.count <= output.pieceSize)
    }

    func storeBlocks(_ blocks: BlockPair, _ bytes: UnsafeRawBufferPointer) throws {
        let hash = try newHash()
        for (first, second) in blocks.pieces(of: output.pieceSize) {
            hash?.update(blocks.contents(of: first, in: bytes), blocks.contents(of: second, in: bytes))
            let stored = areOnePiece(first, second) ? [first.lowerBound..<first.upperBound + second.count] : [first, second]
            for piece in stored {
                try output.store(blocks.contents(of: piece, in: bytes), tensor: tensor, offset: piece.lowerBound)
            }
        }
        try note(hash?.finalize() ?? (.none, .none), of: blocks)
    }

    func storeBlock(_ index: Int, offset: Int, _ bytes: UnsafeRawBufferPointer, digest: Digest) throws {
        let block = BlockPair(index: index, offset..<offset + bytes.count)
        for (piece, _) in block.pieces(of: output.pieceSize) {
            try output.store(block.contents(of: piece, in: bytes), tensor: tensor, offset: piece.lowerBound)
        }
        note((digest, .none), of: block)
    }

    private func note(_ made: (Digest, Digest), of blocks: BlockPair) {
        digests.withLock { digests in
            digests[blocks.index] = made.0
            if !blocks.second.isEmpty { digests[blocks.index + 1] = made.1 }
        }
        progress.add(blocks.byteRange.count)
    }

    /// - Throws: `internal` if the operation left out a block, before the result can be mistaken for complete.
    func finish() throws -> [Digest] {
        try digests.withLock { digests in
            try digests.enumerated().map { index, digest in
                guard let digest else { throw TesseraError(.internal, "block \(index) was left out") }
                return digest
            }
        }
    }
}
