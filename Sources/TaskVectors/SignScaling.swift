import Core
import Operators
import TensorKernels

/// One bit for each element of a task vector `δ`, and the size of a step: what is read is `+s` where `δ ≥ 0`, and `−s` elsewhere
/// (docs/task-vectors.md). The case says which elements share `s`.
///
/// - `tensor`: BitDelta (arXiv 2402.10193) before its distillation, `s = Σ|δ| / n`, in float32.
/// - `row`, `column`: per-axis signs (arXiv 2512.19720) before their training, `s = Σ|δ|` of the row or column by the number of
///   its elements that are not 0, in bfloat16; 0 if there are none. Rows run along the last axis.
package enum SignScaling: String, Sendable, Hashable, Codable {
    case tensor, row, column

    /// The number of scales for a vector of the given shape.
    package func scaleCount(in shape: [Int]) -> Int {
        let width = max(1, shape.last ?? 1)
        return switch self {
        case .tensor: 1
        case .row: Shape.count(shape) / width
        case .column: width
        }
    }

    var scaleType: DType { self == .tensor ? .f32 : .bf16 }

    func tensors(shape: [Int]) -> [EncodedTensor] {
        [
            EncodedTensor(.codes, .u8, [(Shape.count(shape) + 7) / 8], rate: ChunkRate(bits: 1)),
            EncodedTensor(.scales, scaleType, [scaleCount(in: shape)]),
        ]
    }

    /// Elements in a row of what shares a scale; columns have the rows of the tensor.
    fileprivate func length(in shape: [Int]) -> Int {
        self == .tensor ? max(1, Shape.count(shape)) : max(1, shape.last ?? 1)
    }

    /// Memory of the sums that the scales of `vectors` vectors are made of.
    func memory(shape: [Int], vectors: Int) -> MemoryNeed {
        let width = Self.terms * vectors
        let bytes =
            self == .column
            ? TensorPasses.columnSumsBytes(width: length(in: shape), terms: width)
            : TensorPasses.rowStatisticsBytes(count: Shape.count(shape), length: length(in: shape), width: width)
        return MemoryNeed(shared: bytes + 4 * vectors * scaleCount(in: shape))
    }

    fileprivate static let terms = 2
}

extension StorageFormat {
    var signScaling: SignScaling? { if case .signs(let scaling) = self { scaling } else { nil } }
}

/// What scales are made of: for every scale of a vector, `Σ|δ|`, and the number of elements that are not 0.
struct SignSums: Sendable {
    let scaling: SignScaling
    private let magnitudes: [Double]
    private let nonzero: [Double]
    /// Elements of each scale.
    private let length: Int

    /// As they are stored: rounded to the type of the scales, to nearest, ties to even.
    var scales: [Float] {
        zip(magnitudes, nonzero).map { sum, count in
            let mean = Float(sum / max(1, scaling == .tensor ? Double(length) : count))
            guard scaling != .tensor else { return mean }
            let bits = mean.bitPattern
            return Float(bitPattern: min((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000, 0x7f7f_0000))
        }
    }

    /// `Σ(δ − δ̂)² = Σδ² + Σ s·(n·s − 2·Σ|δ|)`, the second sum over the scales, each of `n` elements.
    func error(energy: Double) -> Double {
        max(0, zip(scales, magnitudes).reduce(energy) { $0 + Double($1.0) * (Double(length) * Double($1.0) - 2 * $1.1) })
    }

    /// One pass for all vectors.
    ///
    /// - Throws: `badData` when a vector has numbers that are not finite.
    static func find(
        _ scaling: SignScaling, of vectors: Int, in tensor: TensorPasses, _ vector: @escaping Vector
    ) throws -> [SignSums] {
        let length = scaling.length(in: tensor.shape), isColumn = scaling == .column
        let found = try isColumn ? columns(length, vectors, tensor, vector) : rows(length, vectors, tensor, vector)
        guard found.allSatisfy(\.isFinite) else { throw NotFinite.error }
        let scales = scaling.scaleCount(in: tensor.shape), width = SignScaling.terms * vectors
        func term(_ term: Int) -> [Double] {
            guard !found.isEmpty else { return Array(repeating: 0, count: scales) }
            return (0..<scales).map { found[isColumn ? term * length + $0 : $0 * width + term] }
        }
        return (0..<vectors).map { index in
            SignSums(
                scaling: scaling, magnitudes: term(SignScaling.terms * index), nonzero: term(SignScaling.terms * index + 1),
                length: isColumn ? Shape.count(tensor.shape) / length : length)
        }
    }

    typealias Vector = @Sendable (Tile, _ index: Int) throws -> UnsafePointer<Float>

    private static func rows(
        _ length: Int, _ vectors: Int, _ tensor: TensorPasses, _ vector: @escaping Vector
    ) throws -> [Double] {
        let width = SignScaling.terms * vectors
        return try tensor.rowStatistics(length: length, width: width) { tile, pieces, numbers in
            for index in 0..<vectors {
                let values = try vector(tile, index)
                for (number, piece) in pieces.enumerated() {
                    let own = numbers + number * width + SignScaling.terms * index
                    own[0] = tile.kernels.sumOfMagnitudes(values + piece.offset, count: piece.count)
                    own[1] = Double(tile.kernels.countNonzero(values + piece.offset, count: piece.count))
                }
            }
        } join: { numbers, later in
            for term in 0..<width { numbers[term] += later[term] }
        }
    }

    private static func columns(
        _ length: Int, _ vectors: Int, _ tensor: TensorPasses, _ vector: @escaping Vector
    ) throws -> [Double] {
        try tensor.columnSums(width: length, terms: SignScaling.terms * vectors) { tile, pieces, sums in
            for index in 0..<vectors {
                let values = try vector(tile, index), own = sums + SignScaling.terms * index * length
                for piece in pieces {
                    for place in 0..<piece.count {
                        let value = values[piece.offset + place]
                        own[piece.column + place] += Double(value.magnitude)
                        own[length + piece.column + place] += value == 0 ? 0 : 1
                    }
                }
            }
        }
    }
}

/// Encodes a vector in signs, tile by tile, with scales that are known.
struct SignCoder: Sendable {
    private let scaling: SignScaling
    private let scales: [Float]

    init(_ scaling: SignScaling, scales: [Float]) {
        self.scaling = scaling
        self.scales = scales
    }

    /// - Parameters:
    ///   - codes: gets one byte for each element.
    ///   - decoded: gets the tile as it will be read.
    func code(
        _ x: UnsafePointer<Float>, of tile: Tile, codes: UnsafeMutablePointer<UInt8>, decoded: UnsafeMutablePointer<Float>
    ) {
        for piece in RowPieces(tile.range, length: scaling.length(in: tile.shape)) {
            for place in 0..<piece.count {
                let index = piece.offset + place, scale = scales[scaling == .column ? piece.column + place : piece.row]
                codes[index] = x[index] < 0 ? 0 : 1
                decoded[index] = x[index] < 0 ? -scale : scale
            }
        }
    }

    func writeScales(to output: Int, of tensor: TensorPasses) throws {
        if scaling == .tensor {
            try tensor.write(scales, to: output)
        } else {
            try tensor.write(scales.map { UInt16($0.bitPattern >> 16) }, to: output)
        }
    }
}

extension SignScaling {
    /// The scales that a stretch of at most a tile is read with.
    func scaleRange(of range: Range<Int>, shape: [Int]) -> Range<Int> {
        guard !range.isEmpty else { return 0..<0 }
        let length = length(in: shape), first = range.lowerBound / length, last = (range.upperBound - 1) / length
        if self != .column { return first..<last + 1 }
        return first == last ? range.lowerBound - first * length..<range.upperBound - first * length : 0..<length
    }

    /// Decodes a stretch.
    ///
    /// - Parameters:
    ///   - codes: begins with the byte that has the bit of the first element.
    ///   - scales: those of `scaleRange`.
    func decode(
        _ codes: UnsafeRawPointer, _ range: Range<Int>, shape: [Int], scales: [Float], into target: UnsafeMutablePointer<Float>,
        kernels: Kernels
    ) {
        let first = range.lowerBound % 8, from = scaleRange(of: range, shape: shape).lowerBound
        if self == .column {
            kernels.dequantize(codes, bits: 1, first: first, values: [-1, 1], into: target, count: range.count)
        }
        for piece in RowPieces(range, length: length(in: shape)) {
            let own = target + piece.offset
            if self == .column {
                for place in 0..<piece.count { own[place] *= scales[piece.column + place - from] }
            } else {
                let scale = scales[piece.row - from]
                kernels.dequantize(
                    codes, bits: 1, first: first + piece.offset, values: [-scale, scale], into: own, count: piece.count)
            }
        }
    }
}
