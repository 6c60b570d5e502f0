package import Checkpoints
import Synchronization
package import TensorKernels

/// Runs independent pieces of one tensor's work, possibly on several threads.
package protocol ParallelRunner: Sendable {
    /// Calls `body` once with each index below `count`, in any order; returns when all are done, throws what one of them threw.
    func forEach(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws
}

/// Takes the blocks of one output tensor.
package protocol BlockSink: Sendable {
    /// Gives `fill` room for the block's bytes and takes them when it returns. `fill` reports how far it has come, so that
    /// what it wrote can be hashed while it is in cache.
    func writeBlock(
        _ index: Int, byteRange: Range<Int>, fill: (UnsafeMutableRawPointer, _ filled: (Int) throws -> Void) throws -> Void)
        throws
}

/// One output tensor at work: what a method sees of the machine.
///
/// Statistics passes read every source once and fold it into something small; `emit` computes the output. Each primitive gives
/// the same result for any number of threads: sums have the grain as their leaf and a fixed tree above it, other
/// folds must be exact, and an output element depends on nothing but its inputs and those results.
package struct TensorPasses: Sendable {
    package let shape: [Int]
    package let inputs: TensorInputs
    package let sources: [any ElementSource]
    package let outputType: DType
    package let kernels: Kernels
    private let runner: any ParallelRunner
    private let sink: any BlockSink
    private let grains: GrainPool

    /// Grains that a thread folds before it asks for more work.
    private static let grainsPerSpan = 128

    package init(
        shape: [Int], outputType: DType, sources: [any ElementSource], inputs: TensorInputs, kernels: Kernels,
        runner: any ParallelRunner, sink: any BlockSink
    ) {
        self.shape = shape
        self.outputType = outputType
        self.sources = sources
        self.inputs = inputs
        self.kernels = kernels
        self.runner = runner
        self.sink = sink
        grains = GrainPool { Grain(sources: sources, inputs: inputs, kernels: kernels) }
    }

    package var count: Int { shape.reduce(1, *) }
    private var byteCount: Int { count * outputType.bitWidth / 8 }
    private var grainCount: Int { (count + FixedTree.blockElements - 1) / FixedTree.blockElements }

    // MARK: Statistics

    /// Folds every grain into a value of which each thread keeps one; `combine` joins them in no particular order, so the
    /// fold must be exact: integers, minima, maxima, histograms.
    package func fold<Part: Sendable>(
        _ initial: Part, _ body: @escaping @Sendable (inout Part, Grain) throws -> Void, combine: (inout Part, Part) -> Void
    ) throws -> Part {
        let idle = Mutex<[Part]>([])
        try forEachSpan { grain, ranges in
            var part = idle.withLock { $0.popLast() } ?? initial
            for range in ranges {
                grain.take(range)
                try body(&part, grain)
            }
            idle.withLock { $0.append(part) }
        }
        return idle.withLock { $0.reduce(into: initial, combine) }
    }

    /// Adds up `terms` float64 quantities of every grain: `body` adds a grain's share to the zeros it is given.
    package func sums(_ terms: Int, _ body: @escaping @Sendable (Grain, inout [Double]) throws -> Void) throws -> [Double] {
        try perGrain(terms, zero: 0, body).map(FixedTree.sum)
    }

    /// Counts `terms` things in every grain; the result holds, for each, one count a grain.
    package func counts(_ terms: Int, _ body: @escaping @Sendable (Grain, inout [Int]) throws -> Void) throws -> [[Int]] {
        try perGrain(terms, zero: 0, body)
    }

    private func perGrain<Value: Sendable>(
        _ terms: Int, zero: Value, _ body: @escaping @Sendable (Grain, inout [Value]) throws -> Void
    ) throws -> [[Value]] {
        let found = Mutex(Array(repeating: Array(repeating: zero, count: grainCount), count: terms))
        try forEachSpan { grain, ranges in
            for range in ranges {
                grain.take(range)
                var share = Array(repeating: zero, count: terms)
                try body(grain, &share)
                let index = range.lowerBound / FixedTree.blockElements
                found.withLock { found in
                    for term in 0..<terms { found[term][index] = share[term] }
                }
            }
        }
        return found.withLock { $0 }
    }

    /// Visits one grain by its index, on the calling thread.
    package func visit<Result>(grain index: Int, _ body: (Grain) throws -> Result) throws -> Result {
        try grains.with { grain in
            grain.take(grainRange(index))
            return try body(grain)
        }
    }

    private func forEachSpan(_ body: @escaping @Sendable (Grain, LazyMapSequence<Range<Int>, Range<Int>>) throws -> Void) throws {
        let spans = (grainCount + Self.grainsPerSpan - 1) / Self.grainsPerSpan
        try runner.forEach(spans) { span in
            let indices = span * Self.grainsPerSpan..<min(grainCount, (span + 1) * Self.grainsPerSpan)
            try grains.with { try body($0, indices.lazy.map(grainRange)) }
        }
    }

    private func grainRange(_ index: Int) -> Range<Int> {
        index * FixedTree.blockElements..<min(count, (index + 1) * FixedTree.blockElements)
    }

    // MARK: Output

    /// Computes every output element: `body` fills float32 room for the grain in hand, which is rounded once to the output
    /// type, to nearest even.
    package func emit(_ body: @escaping @Sendable (Grain, UnsafeMutablePointer<Float>) throws -> Void) throws {
        let width = outputType.bitWidth / 8
        try forEachBlock { index, byteRange in
            try grains.with { grain in
                try sink.writeBlock(index, byteRange: byteRange) { target, filled in
                    let elements = byteRange.lowerBound / width..<byteRange.upperBound / width
                    for start in stride(from: elements.lowerBound, to: elements.upperBound, by: FixedTree.blockElements) {
                        grain.take(start..<min(elements.upperBound, start + FixedTree.blockElements))
                        let result = grain.scratch(0)
                        try body(grain, result)
                        let offset = start * width - byteRange.lowerBound
                        kernels.narrow(result, to: outputType, target + offset, count: grain.count)
                        try filled(offset + grain.count * width)
                    }
                }
            }
        }
    }

    /// Copies a source's bytes as they are; for outputs of the source's own type.
    package func emitBytes(ofSource index: Int) throws {
        let stretch = FixedTree.blockElements * 8
        try forEachBlock { block, byteRange in
            try sink.writeBlock(block, byteRange: byteRange) { target, filled in
                for start in stride(from: byteRange.lowerBound, to: byteRange.upperBound, by: stretch) {
                    let end = min(byteRange.upperBound, start + stretch)
                    try sources[index].copyBytes(start..<end, to: target + (start - byteRange.lowerBound))
                    try filled(end - byteRange.lowerBound)
                }
            }
        }
    }

    private func forEachBlock(_ body: @escaping @Sendable (Int, Range<Int>) throws -> Void) throws {
        let size = TreeDigest.blockSize
        try runner.forEach((byteCount + size - 1) / size) { index in
            try body(index, index * size..<min(byteCount, (index + 1) * size))
        }
    }
}

/// Hands each thread a grain of its own, and keeps them for the tensor's next pass.
private final class GrainPool: Sendable {
    private let make: @Sendable () -> Grain
    private let idle = Mutex<[GrainBox]>([])

    /// A grain is used by one thread at a time: whoever took it from the pool.
    private struct GrainBox: @unchecked Sendable {
        let grain: Grain
    }

    init(_ make: @escaping @Sendable () -> Grain) { self.make = make }

    func with<Result>(_ body: (Grain) throws -> Result) rethrows -> Result {
        let box = idle.withLock { $0.popLast() } ?? GrainBox(grain: make())
        defer { idle.withLock { $0.append(box) } }
        return try body(box.grain)
    }
}
