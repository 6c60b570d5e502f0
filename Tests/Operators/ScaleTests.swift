import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// A method with a scale makes of several values at once what it makes of each alone, to the last bit.
@Suite struct ScaleTests {
    private static let methods = MergeMethods.all.filter { $0.scale != nil }.map { $0.name }
    private static let scales = [0.3, -1.7, 0, 1]

    @Test func thereAreMethods() {
        #expect(Self.methods.count >= 20)
        // Its update depends on the scale.
        #expect(SVC.scale == nil)
        for method in MergeMethods.all {
            guard let scale = method.scale else { continue }
            #expect(method.parameters.contains { $0.name == scale && $0.scope == .shared && $0.kind == .number })
        }
    }

    /// Some values differ from those of the base in their last bits only, some are zero, one is not a number.
    private static func bench(_ shape: [Int], _ output: DType, special: Bool) -> Bench {
        var random = SplitMix(seed: 3)
        let count = shape.reduce(1, *)
        let base = (0..<count).map { $0 % 5 == 0 ? -0.0 : Float.random(in: -1...1, using: &random) }
        let models = (0..<3).map { model in
            var values = base.map { $0 + ($0 < 0.2 ? Float.random(in: -0.1...0.1, using: &random) : 0) }
            if special, model == 1, count > 4 { values[4] = .nan }
            return values
        }
        return Bench(sources: ([base] + models).map { TestTensor($0, shape: shape) }, base: 0, output: output, randomKey: 7)
    }

    private func expectSame(_ name: String, _ bench: Bench, codec: any ElementCodec, rescale: Bool = true) throws {
        let method = try #require(MergeMethods.named(name)), scale = method.scale ?? ""
        let own = [[:]] + (0..<3).map { ["weight": ParameterValue.number(0.4 + 0.2 * Double($0)), "density": .number(0.6)] }
        func outputs(_ value: ParameterValue) throws -> [[UInt8]] {
            try bench.outputs(method, codec: codec, shared: [scale: value, "rescale": .flag(rescale)], perInput: own)
        }
        let together = try outputs(.numbers(Self.scales)), alone = try Self.scales.flatMap { try outputs(.number($0)) }
        #expect(together == alone, "\(name), \(bench.sources[0].shape), \(bench.output)")
        #expect(Set(together).count > 1)
    }

    @Test(arguments: methods)
    func severalAtOnce(name: String) throws {
        var bench = Self.bench([9, 1_000], .bf16, special: false)
        bench.runner = AtOnce()
        try expectSame(name, bench, codec: Rounding(dtype: .bf16))
        try expectSame(name, Self.bench([3], .f32, special: false), codec: Rounding(dtype: .f32))
        // What is not a number would be all of a rescaled vector, and a norm of the model.
        guard MergeMethods.named(name)?.usesLinearAlgebra == false, name != "prism" else { return }
        try expectSame(name, Self.bench([9_000], .f32, special: true), codec: Rounding(dtype: .f32), rescale: false)
    }

    /// Blocks end within the tensor, and tiles within rows.
    @Test(arguments: ["ties", "magmax", "consensus", "iso_c"])
    func acrossBlocks(name: String) throws {
        let length = TreeDigest.blockSize / 4 + 20_001
        try expectSame(
            name, Self.bench(name == "iso_c" ? [1, length] : [length], .f32, special: false), codec: Rounding(dtype: .f32))
    }

    /// A codec that makes several tensors, and needs a look at all values first.
    @Test func throughACodecOfSeveralTensors() throws {
        for name in ["ties", "tsv"] {
            try expectSame(name, Self.bench([31, 300], .f32, special: false), codec: PairCodec(dtype: .f32))
        }
    }
}

/// Each value's part that is a multiple of the largest, as one tensor, and the rest as another.
private struct PairCodec: ElementCodec {
    static let name = "pair"
    private var largest: Float = 0

    init(dtype: DType) {}

    func outputs(shape: [Int]) -> [EncodedTensor] {
        ["", ".rest"].map { EncodedTensor(suffix: $0, dtype: .f32, shape: shape, rate: ChunkRate(bits: 32)) }
            + [EncodedTensor(suffix: ".largest", dtype: .f32, shape: [1], rate: nil)]
    }

    func prepared(for values: @escaping TileValues, in tensor: TensorPasses) throws -> PairCodec {
        var prepared = self
        prepared.largest = try tensor.fold(Float(0)) { largest, tile in
            try values(tile, tile.scratch(0))
            for index in 0..<tile.count { largest = max(largest, tile.scratch(0)[index].magnitude) }
        } combine: {
            $0 = max($0, $1)
        }
        try tensor.write([prepared.largest], to: 2)
        return prepared
    }

    func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) throws {
        for index in 0..<tile.count {
            let whole = (values[index] / largest).rounded(.towardZero) * largest
            targets[0].storeBytes(of: whole, toByteOffset: 4 * index, as: Float.self)
            targets[1].storeBytes(of: values[index] - whole, toByteOffset: 4 * index, as: Float.self)
        }
    }
}
