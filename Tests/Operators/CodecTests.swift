import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// Codecs that make several tensors of one, by the interface alone.
@Suite struct CodecTests {
    /// Eight-bit numbers, and the scale of every 128 of them.
    private struct GroupCodec: ElementCodec {
        static let name = "int8-groups"
        static let length = 128

        init(dtype: DType) {}

        func outputs(shape: [Int]) -> [EncodedTensor] {
            let count = shape.reduce(1, *)
            return [
                EncodedTensor(dtype: .i8, shape: shape, rate: ChunkRate(bits: 8)),
                EncodedTensor(
                    suffix: ".scales", dtype: .f32, shape: [(count + Self.length - 1) / Self.length],
                    rate: ChunkRate(unit: Self.length, bits: 32)),
            ]
        }

        func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) throws {
            for start in stride(from: 0, to: tile.count, by: Self.length) {
                let group = start..<min(tile.count, start + Self.length)
                let scale = group.reduce(0) { max($0, values[$1].magnitude) } / 127
                guard scale.isFinite else { throw TesseraError(.badData, "is not finite") }
                targets[1].storeBytes(of: scale, toByteOffset: start / Self.length * 4, as: Float.self)
                for index in group {
                    let code = scale == 0 ? 0 : Int8((values[index] / scale).rounded())
                    targets[0].storeBytes(of: code, toByteOffset: index, as: Int8.self)
                }
            }
        }
    }

    /// Eight-bit numbers with one scale for all of them, which has to be known before the first is encoded.
    private struct WholeCodec: ElementCodec {
        static let name = "int8-whole"
        private var scale: Float = 0

        init(dtype: DType) {}

        var passes: Int { 1 }

        func outputs(shape: [Int]) -> [EncodedTensor] {
            [
                EncodedTensor(dtype: .i8, shape: shape, rate: ChunkRate(bits: 8)),
                EncodedTensor(suffix: ".scale", dtype: .f32, shape: [1], rate: nil),
            ]
        }

        func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> WholeCodec {
            let largest = try tensor.fold(Float(0)) { largest, tile in
                try values(tile, tile.scratch(0))
                for index in 0..<tile.count { largest = max(largest, tile.scratch(0)[index].magnitude) }
            } combine: {
                $0 = max($0, $1)
            }
            var prepared = self
            prepared.scale = largest / 127
            try tensor.write([prepared.scale], to: 1)
            return prepared
        }

        func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) {
            for index in 0..<tile.count {
                targets[0].storeBytes(of: Int8((values[index] / scale).rounded()), toByteOffset: index, as: Int8.self)
            }
        }
    }

    /// Four bits an element, two in a byte: a single output, filled in place.
    private struct NibbleCodec: ElementCodec {
        static let name = "nibbles"

        init(dtype: DType) {}

        func outputs(shape: [Int]) -> [EncodedTensor] {
            [
                EncodedTensor(
                    dtype: .u8, shape: [(shape.reduce(1, *) + 1) / 2], rate: ChunkRate(bits: 4), blockSize: TreeDigest.blockSize)
            ]
        }

        func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) {
            for index in stride(from: 0, to: tile.count, by: 2) {
                let high = index + 1 < tile.count ? UInt8(values[index + 1]) & 15 : 0
                targets[0].storeBytes(of: UInt8(values[index]) & 15 | high << 4, toByteOffset: index / 2, as: UInt8.self)
            }
        }
    }

    /// Two sources, and their sum as `linear` makes it: whole numbers from 0 to 14.
    private static func sources(_ count: Int) -> ([TestTensor], sum: [Float]) {
        let sources = [3, 5].map { step in (0..<count).map { Float($0 / 100 * step % 8) } }
        return (sources.map { TestTensor($0) }, zip(sources[0], sources[1]).map { $0 + $1 })
    }

    private func merge(_ sources: [TestTensor], by codec: any ElementCodec, runner: any ParallelRunner) throws -> [[UInt8]] {
        let bench = Bench(sources: sources, runner: runner)
        return try bench.outputs(
            Linear.self, codec: codec, shared: ["normalize": .flag(false)], perInput: sources.map { _ in ["weight": .number(1)] })
    }

    private static let runners: [any ParallelRunner] = [InOrder(), Backwards(), AtOnce()]

    /// More than a chunk, and neither a whole number of tiles nor of groups.
    @Test func severalOutputs() throws {
        let (sources, sum) = Self.sources(ChunkRate.chunk + 20_001)
        let outputs = try merge(sources, by: GroupCodec(dtype: .f32), runner: AtOnce())
        let scales = TestTensor(.f32, [outputs[1].count / 4], bytes: outputs[1]).values
        #expect(scales.count == (sum.count + 127) / 128 && outputs[0].count == sum.count)
        let wrong = sum.indices.first { index in
            let scale = scales[index / 128], code = Double(Int8(bitPattern: outputs[0][index]))
            return (code * scale - Double(sum[index])).magnitude > scale / 2 + 1e-6
        }
        #expect(wrong == nil)
    }

    @Test func severalOutputsAreTheSameByAnyThreads() throws {
        let (sources, _) = Self.sources(50_001)
        let expected = try merge(sources, by: GroupCodec(dtype: .f32), runner: InOrder())
        for runner in Self.runners { #expect(try merge(sources, by: GroupCodec(dtype: .f32), runner: runner) == expected) }
    }

    @Test func aLookAtAllValuesComesFirst() throws {
        let (sources, sum) = Self.sources(20_001)
        for runner in Self.runners {
            let outputs = try merge(sources, by: WholeCodec(dtype: .f32), runner: runner)
            let scale = (sum.max() ?? 0) / 127
            #expect(TestTensor(.f32, [1], bytes: outputs[1]).values == [Double(scale)])
            #expect(outputs[0] == sum.map { UInt8(bitPattern: Int8(($0 / scale).rounded())) })
        }
    }

    @Test func anOutputOfLessThanAByteAnElement() throws {
        let (sources, sum) = Self.sources(20_001)
        let expected = stride(from: 0, to: sum.count, by: 2).map { index in
            UInt8(sum[index]) | (index + 1 < sum.count ? UInt8(sum[index + 1]) << 4 : 0)
        }
        for runner in Self.runners { #expect(try merge(sources, by: NibbleCodec(dtype: .f32), runner: runner) == [expected]) }
    }

    @Test func whatACodecCannotStoreIsAnError() throws {
        let sources = [TestTensor([1, .infinity]), TestTensor([1, 2])]
        let error = #expect(throws: TesseraError.self) {
            try merge(sources, by: GroupCodec(dtype: .f32), runner: InOrder())
        }
        #expect(error?.code == .badData)
        #expect(throws: TesseraError.self) { try merge(sources, by: Rounding(dtype: .i32), runner: InOrder()) }
    }

    /// A copy is right only where the codec would change nothing.
    @Test func encodedTensorsAreNotCopied() throws {
        let bench = Bench(sources: [TestTensor([1, 2, 3])])
        let outputs = try bench.outputs(Passthrough.self, codec: GroupCodec(dtype: .f32))
        #expect(outputs[0] == [42, 85, 127])
    }

    @Test(arguments: ElementCodecs.all.map { $0.name })
    func codecsAreKnownByTheirNames(name: String) { #expect(ElementCodecs.named(name)?.name == name) }
}
