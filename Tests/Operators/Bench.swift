import Checkpoints
import Dispatch
import Operators
import Synchronization
import TensorKernels
import TestSupport

/// One tensor and a method, without plan, files or worker.
struct Bench {
    var sources: [TestTensor]
    var base: Int?
    var output = DType.f32
    var kernels = Kernels.best
    var runner: any ParallelRunner = InOrder()
    /// Bytes beside what the tensor needs.
    var memory = 1 << 30
    var randomKey: UInt64 = 0

    /// The output's bytes. Every block is written exactly once, or this throws.
    func run(_ method: any MergeMethod.Type, shared: [String: ParameterValue] = [:], perInput: [[String: ParameterValue]] = [])
        throws -> TestTensor
    {
        let shape = sources[0].shape
        let inputs = TensorInputs(count: sources.count, base: base, randomKey: randomKey)
        var values = ParameterValues(shared: shared, perInput: perInput)
        while values.perInput.count < sources.count { values.perInput.append([:]) }
        for parameter in method.parameters {
            guard let standard = parameter.defaultValue else { continue }
            if parameter.scope == .shared {
                values.shared[parameter.name] = values.shared[parameter.name] ?? standard
            } else {
                for index in values.perInput.indices {
                    values.perInput[index][parameter.name] = values.perInput[index][parameter.name] ?? standard
                }
            }
        }
        let stored = try sources.map {
            try StoredTensor(Memory(bytes: $0.bytes), offset: 0, dtype: $0.dtype, count: shape.reduce(1, *))
        }
        let sink = Collector()
        try method.init(values, inputs: inputs).merge(
            TensorPasses(
                shape: shape, outputType: output, sources: stored, inputs: inputs, kernels: kernels, runner: runner,
                memory: MemoryBudget(bytes: memory), sinks: [sink]
            ))
        return TestTensor(output, shape, bytes: try sink.bytes(count: shape.reduce(1, *) * output.bitWidth / 8))
    }
}

/// Bytes in memory, handed out through the caller's scratch as `pread` would.
struct Memory: ByteSource {
    let bytes: [UInt8]
    var size: Int { bytes.count }

    func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: scratch, file: "memory")
        scratch.copyBytes(from: bytes[range])
        return try body(UnsafeRawBufferPointer(rebasing: scratch[..<range.count]))
    }
}

final class Collector: BlockSink {
    private let blocks = Mutex<[Int: [UInt8]]>([:])

    func writeBlock(
        _ index: Int, byteRange: Range<Int>, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void
    ) throws {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: TreeDigest.blockSize, alignment: 64)
        defer { room.deallocate() }
        guard let start = room.baseAddress else { return }
        for lower in stride(from: byteRange.lowerBound, to: byteRange.upperBound, by: step) {
            try fill(lower..<min(byteRange.upperBound, lower + step), start + (lower - byteRange.lowerBound))
        }
        let isNew = blocks.withLock { $0.updateValue(Array(room[..<byteRange.count]), forKey: index) == nil }
        if !isNew { throw TesseraError(.internal, "block \(index) was written twice") }
    }

    func storeBlock(_ index: Int, offset: Int, _ bytes: UnsafeRawBufferPointer) throws {
        let isNew = blocks.withLock { $0.updateValue(Array(bytes), forKey: index) == nil }
        if !isNew { throw TesseraError(.internal, "block \(index) was written twice") }
    }

    func bytes(count: Int) throws -> [UInt8] {
        let all = blocks.withLock { blocks in blocks.keys.sorted().flatMap { blocks[$0] ?? [] } }
        guard all.count == count else { throw TesseraError(.internal, "\(all.count) of \(count) bytes were written") }
        return all
    }
}

// MARK: Runners

struct InOrder: ParallelRunner {
    let threads = 1

    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        for index in 0..<count { try body(index) }
    }
}

struct Backwards: ParallelRunner {
    let threads = 1

    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        for index in (0..<count).reversed() { try body(index) }
    }
}

/// Really at once, in whatever order it happens.
struct AtOnce: ParallelRunner {
    let threads = 4

    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let failure = Mutex<(any Error)?>(nil), next = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: min(count, limit)) { _ in
            while case let index = next.wrappingAdd(1, ordering: .relaxed).oldValue, index < count {
                do { try body(index) } catch { failure.withLock { $0 = error } }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}
