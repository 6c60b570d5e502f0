import Core
import Foundation
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// One tensor of a base and its fine-tunes and an encoding, without plan, store or worker.
struct EncodingBench {
    var base: TestTensor
    var tunes: [TestTensor]
    var kernels = Kernels.best
    var runner: any ParallelRunner = InOrder()
    /// Bytes beside what the tensor needs.
    var memory = 1 << 30

    /// Task vectors themselves: the base is zero.
    init(vectors: [[Float]], shape: [Int]) {
        base = TestTensor([Float](repeating: 0, count: shape.reduce(1, *)), shape: shape)
        tunes = vectors.map { TestTensor($0, shape: shape) }
    }

    init(base: TestTensor, tunes: [TestTensor]) {
        self.base = base
        self.tunes = tunes
    }

    /// A format with the bytes of its parts.
    struct Stored {
        let format: StorageFormat
        let shape: [Int]
        let parts: [StorageFormat.Part: [UInt8]]
    }

    func run(_ encoding: Encoding) throws -> (statistics: EncodingStatistics, formats: [Stored]) {
        let shape = base.shape
        let sources = try ([base] + tunes).map {
            try StoredTensor(Memory(bytes: $0.bytes), offset: 0, dtype: $0.dtype, count: shape.reduce(1, *))
        }
        let outputs = encoding.formats.map { $0.tensors(shape: shape) }
        let sinks = outputs.map { $0.map { _ in Collector() } }
        let statistics = try encoding.encode(
            TensorPasses(
                shape: shape, sources: sources, inputs: TensorInputs(count: sources.count, base: 0),
                kernels: kernels, runner: runner, memory: MemoryBudget(bytes: memory), sinks: sinks.flatMap(\.self)))
        let formats = try zip(encoding.formats, zip(outputs, sinks)).map { format, made in
            let parts = try zip(made.0, made.1).map { (try #require($0.part), try $1.bytes(count: $0.byteCount)) }
            return Stored(format: format, shape: shape, parts: Dictionary(uniqueKeysWithValues: parts))
        }
        return (statistics, formats)
    }
}

extension EncodingStatistics {
    /// Of an encoding that stores vectors.
    var vectors: [VectorError] {
        get throws {
            guard case .vectors(_, let tasks) = self else { throw TesseraError(.internal, "no vectors were stored") }
            return tasks
        }
    }

    /// Of an encoding that stores masks.
    var masks: [MaskSums] {
        get throws {
            guard case .masks(_, let tasks) = self else { throw TesseraError(.internal, "no masks were stored") }
            return tasks
        }
    }
}

extension EncodingBench.Stored {
    /// The parts one after another as a file might have them, at odd places.
    func open(in directory: TemporaryDirectory, mapped: Bool) throws -> PackedVector {
        var bytes: [UInt8] = [0], starts: [Int] = []
        for tensor in format.tensors(shape: shape) {
            starts.append(bytes.count)
            bytes += (tensor.part.flatMap { parts[$0] } ?? []) + [0xee]
        }
        let path = "\(directory.path)/\(UUID().uuidString)"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let file = try ReadableFile(path)
        let source: any ByteSource = try mapped ? MappedSource(file) : PreadSource(file)
        let tensors = try zip(format.tensors(shape: shape), starts).map {
            try StoredTensor(source, offset: $1, dtype: $0.dtype, count: $0.shape.reduce(1, *))
        }
        return try PackedVector(format, shape: shape, parts: tensors, kernels: .best)
    }

    /// Element by element, as the words of `docs/task-vectors.md` say it.
    func decoded() -> [Float] {
        let count = shape.reduce(1, *)
        switch format {
        case .zero, .mask: return [Float](repeating: 0, count: count)
        case .dense(let values): return numbers(values, at: Array(0..<count))
        case .sparse(_, let values):
            let places = (0..<count).filter { isMarked($0) }
            var all = [Float](repeating: 0, count: count)
            for (place, value) in zip(places, numbers(values, at: places)) { all[place] = value }
            return all
        case .thinned(let grid):
            let starts = Array(stride(from: 0, to: count, by: grid.every))
            var words = [UInt32](repeating: 0, count: starts.count / 4 + 1)
            CounterRandom(key: grid.key, stream: 0).draw(first: 0, into: &words, count: words.count, kernels: .portable)
            let scales = Self.floats(parts[.scales] ?? [], .bf16, (starts.count + grid.group - 1) / grid.group)
            var all = [Float](repeating: 0, count: count)
            for (stratum, start) in starts.enumerated() {
                let byte = Int(words[stratum / 4] >> (8 * UInt32(stratum % 4)) & 0xff), left = min(grid.every, count - start)
                let code = Float(self.code(stratum, bits: grid.bits))
                all[start + byte * left / 256] = (code - Float((1 << grid.bits) - 1) / 2) * scales[stratum / grid.group]
            }
            return all
        case .signs(let scaling):
            let width = shape.last ?? 1
            let scales = Self.floats(parts[.scales] ?? [], scaling == .tensor ? .f32 : .bf16, scaling.scaleCount(in: shape))
            return (0..<count).map { place in
                let scale = scales[scaling == .tensor ? 0 : scaling == .row ? place / width : place % width]
                return code(place, bits: 1) == 1 ? scale : -scale
            }
        }
    }

    /// Whether ranges that begin and end anywhere, no longer than a tile, are read as these numbers to the last bit, from memory
    /// and from a file.
    func expectReads(_ expected: [Float], _ what: String) throws {
        let directory = try TemporaryDirectory(), count = expected.count
        var random = SplitMix(seed: 11)
        for mapped in [true, false] {
            let vector = try open(in: directory, mapped: mapped)
            var ranges = [0..<min(count, 8192), max(0, count - 8192)..<count, 0..<1, count - 1..<count, 0..<0]
            for _ in 0..<6 {
                let start = Int.random(in: 0..<count, using: &random)
                ranges.append(start..<Int.random(in: start...min(count, start + 8192), using: &random))
            }
            for range in ranges {
                // As much scratch as a tile has.
                let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192 * 8, alignment: 64)
                defer { scratch.deallocate() }
                var found = [Float](repeating: .nan, count: range.count) + [77]
                try vector.load(range, into: &found, scratch: scratch, kernels: .best)
                let areSame = found.map(\.bitPattern) == (expected[range] + [77]).map(\.bitPattern)
                #expect(areSame, "\(what), \(range), mapped: \(mapped)")
            }
        }
    }

    private func code(_ place: Int, bits: Int) -> Int {
        let codes = parts[.codes] ?? [], bit = place * bits
        let pair = Int(codes[bit / 8]) | (bit / 8 + 1 < codes.count ? Int(codes[bit / 8 + 1]) << 8 : 0)
        return pair >> (bit % 8) & ((1 << bits) - 1)
    }

    func isMarked(_ element: Int) -> Bool { (parts[.mask] ?? [])[element / 8] >> (element % 8) & 1 == 1 }

    /// The first values, which belong to these elements.
    private func numbers(_ format: ValueFormat, at elements: [Int]) -> [Float] {
        switch format {
        case .raw(let dtype): return Self.floats(parts[.values] ?? [], dtype, elements.count)
        case .grid(let grid):
            let count = grid.scaleCount(in: shape)
            let scales = Self.floats(parts[.scales] ?? [], grid.granularity == .tensor ? .f32 : .bf16, count)
            let zeros: [Double] =
                switch grid.granularity {
                case .tensor: (parts[.zeros] ?? []).withUnsafeBytes { [$0.loadUnaligned(as: Double.self)] }
                case .row: (parts[.zeros] ?? []).map(Double.init)
                case .group: [Double](repeating: grid.bits == 1 ? 0.5 : Double(1 << (grid.bits - 1)), count: count)
                }
            let length: Int =
                switch grid.granularity {
                case .tensor: Int.max
                case .row: shape.last ?? 1
                case .group(let length): length
                }
            return elements.enumerated().map { place, element in
                Float((Double(code(place, bits: grid.bits)) - zeros[element / length]) * Double(scales[element / length]))
            }
        }
    }

    private static func floats(_ bytes: [UInt8], _ dtype: DType, _ count: Int) -> [Float] {
        bytes.withUnsafeBytes { bytes in
            (0..<count).map { index in
                switch dtype {
                case .bf16: Float(bitPattern: UInt32(bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16)
                case .f16: Float(Float16(bitPattern: bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)))
                default: bytes.loadUnaligned(fromByteOffset: 4 * index, as: Float.self)
                }
            }
        }
    }
}

/// Task vectors of many kinds.
enum SomeVectors {
    static let kinds = ["normal", "sparse", "zero", "constant", "far", "bfloat16"]

    static func make(_ kind: String, count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in
            switch kind {
            case "sparse": Int.random(in: 0..<10, using: &random) == 0 ? normal(&random) : 0
            case "zero": 0
            case "constant": -0.125
            case "far": 1000 + normal(&random) / 1000
            case "bfloat16": Float(bitPattern: normal(&random).bitPattern & 0xffff_0000)
            default: normal(&random) / 100
            }
        }
    }

    static func normal(_ random: inout SplitMix) -> Float {
        let sum = (0..<4).reduce(0.0) { sum, _ in sum + Double.random(in: -1...1, using: &random) }
        return Float(sum * 0.866)
    }
}
