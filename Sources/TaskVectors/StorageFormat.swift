package import Core
package import Operators

/// A grid of `2^bits` equidistant values: `x = (code − zero) · scale` (arXiv 2503.06921, docs/task-vectors.md).
package struct Grid: Sendable, Hashable {
    /// Which elements share a scale and a zero point.
    package enum Granularity: Sendable, Hashable {
        /// The whole tensor, over its range, as in the paper. The scale is float32; the zero point is float64, because it is
        /// large if the range lies far from zero.
        case tensor
        /// A row of the last axis, over the range of its elements and zero. The scale is bfloat16, the zero point a byte.
        case row
        /// This many consecutive elements. The scale is bfloat16 and fitted to the elements; the zero point is
        /// `Kernels.fittedZero`.
        case group(Int)
    }

    /// 1...8.
    package let bits: Int
    package let granularity: Granularity

    package init(bits: Int, granularity: Granularity) {
        self.bits = bits
        self.granularity = granularity
    }

    package static let bitRange = 1...8
    /// Lengths of groups: powers of two up to a tile, so that no group crosses the end of a tile.
    package static let groupLengths = (4...13).map { 1 << $0 }

    package var largestCode: Int { (1 << bits) - 1 }

    /// The number of elements that share a scale, in a tensor of the given shape.
    func groupLength(in shape: [Int]) -> Int {
        switch granularity {
        case .tensor: max(1, Shape.count(shape))
        case .row: max(1, shape.last ?? 1)
        case .group(let length): length
        }
    }

    /// The number of scales of a tensor of the given shape.
    package func scaleCount(in shape: [Int]) -> Int {
        let count = Shape.count(shape), length = groupLength(in: shape)
        return granularity == .tensor ? 1 : (count + length - 1) / length
    }
}

/// How numbers are stored.
package enum ValueFormat: Sendable, Hashable {
    /// Unchanged, in a floating type.
    case raw(DType)
    /// As codes on a grid.
    case grid(Grid)
}

/// How one tensor of a task vector is stored (docs/task-vectors.md).
package enum StorageFormat: Sendable, Hashable {
    /// Nothing is stored: every element is zero.
    case zero
    /// Every element.
    case dense(ValueFormat)
    /// A bitmap of the kept elements, and their `kept` values. A grid's groups count all elements, not only the kept ones.
    case sparse(kept: Int, ValueFormat)
    /// A bitmap of the elements that are taken from the store's shared vector; the others are zero.
    case mask
    /// Codes of the elements that a hash keeps; the others are zero.
    case thinned(ThinnedGrid)
    /// The sign of every element.
    case signs(SignScaling)
}

extension StorageFormat {
    /// What one of a format's tensors holds. The raw value is the suffix of its name.
    package enum Part: String, Sendable, Hashable {
        /// Packed codes, as bytes.
        case codes = ".codes"
        case scales = ".steps"
        case zeros = ".zeros"
        /// Unquantized numbers.
        case values = ".values"
        /// One bit per element, packed like codes of one bit.
        case mask = ".mask"
    }
}

extension EncodedTensor {
    init(
        _ part: StorageFormat.Part, _ dtype: DType, _ shape: [Int], rate: ChunkRate? = nil, blockSize: Int? = nil
    ) {
        self.init(suffix: part.rawValue, dtype: dtype, shape: shape, rate: rate, blockSize: blockSize)
    }

    /// Which part of a storage format this is; `nil` for the tensors of other codecs.
    package var part: StorageFormat.Part? { StorageFormat.Part(rawValue: suffix) }
}

extension StorageFormat {
    /// The tensors that store a vector of the given shape.
    package func tensors(shape: [Int]) -> [EncodedTensor] {
        let mask = EncodedTensor(.mask, .u8, [(Shape.count(shape) + 7) / 8], rate: ChunkRate(bits: 1))
        return switch self {
        case .zero: []
        case .mask: [mask]
        case .dense(.raw(let dtype)):
            [EncodedTensor(.values, dtype, shape, rate: ChunkRate(bits: dtype.bitWidth))]
        case .dense(.grid(let grid)):
            [EncodedTensor(.codes, .u8, [grid.codeBytes(Shape.count(shape))], rate: ChunkRate(bits: grid.bits))]
                + grid.parameters(shape: shape)
        case .sparse(let kept, .raw(let dtype)): [mask, EncodedTensor(.values, dtype, [kept])]
        case .sparse(let kept, .grid(let grid)):
            // A block holds whole codes: 2²³ of them.
            [mask, EncodedTensor(.codes, .u8, [grid.codeBytes(kept)], blockSize: grid.bits << 20)]
                + grid.parameters(shape: shape)
        case .thinned(let grid): grid.tensors(count: Shape.count(shape))
        case .signs(let scaling): scaling.tensors(shape: shape)
        }
    }

    /// Bytes of a vector of the given shape.
    package func byteCount(shape: [Int]) -> Int { tensors(shape: shape).reduce(0) { $0 + $1.byteCount } }
}

extension Grid {
    fileprivate func codeBytes(_ count: Int) -> Int { (count * bits + 7) / 8 }

    /// Scales and zero points. Those of a whole tensor or of rows are known before the elements are encoded, and are written as a
    /// whole.
    fileprivate func parameters(shape: [Int]) -> [EncodedTensor] {
        let count = scaleCount(in: shape)
        switch granularity {
        case .tensor:
            return [EncodedTensor(.scales, .f32, [count]), EncodedTensor(.zeros, .f64, [count])]
        case .row: return [EncodedTensor(.scales, .bf16, [count]), EncodedTensor(.zeros, .u8, [count])]
        case .group(let length): return [EncodedTensor(.scales, .bf16, [count], rate: ChunkRate(unit: length, bits: 16))]
        }
    }
}

// MARK: In an index

extension Grid: Codable {
    private enum CodingKeys: String, CodingKey { case bits, group }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let bits = try container.decode(Int.self, forKey: .bits)
        guard Self.bitRange.contains(bits) else {
            throw DecodingError.dataCorruptedError(forKey: .bits, in: container, debugDescription: "\(bits) bits per code")
        }
        let granularity: Granularity
        if let length = try? container.decode(Int.self, forKey: .group) {
            guard Self.groupLengths.contains(length) else {
                throw DecodingError.dataCorruptedError(forKey: .group, in: container, debugDescription: "groups of \(length)")
            }
            granularity = .group(length)
        } else {
            switch try container.decode(String.self, forKey: .group) {
            case "tensor": granularity = .tensor
            case "row": granularity = .row
            case let other:
                throw DecodingError.dataCorruptedError(forKey: .group, in: container, debugDescription: "the group '\(other)'")
            }
        }
        self.init(bits: bits, granularity: granularity)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(bits, forKey: .bits)
        switch granularity {
        case .tensor: try container.encode("tensor", forKey: .group)
        case .row: try container.encode("row", forKey: .group)
        case .group(let length): try container.encode(length, forKey: .group)
        }
    }
}

extension ValueFormat: Codable {
    private enum CodingKeys: String, CodingKey { case dtype }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        guard let dtype = try container.decodeIfPresent(DType.self, forKey: .dtype) else {
            self = .grid(try Grid(from: decoder))
            return
        }
        guard dtype.isArithmetic else {
            throw DecodingError.dataCorruptedError(forKey: .dtype, in: container, debugDescription: "values in \(dtype)")
        }
        self = .raw(dtype)
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .raw(let dtype):
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(dtype, forKey: .dtype)
        case .grid(let grid): try grid.encode(to: encoder)
        }
    }
}

extension StorageFormat: Codable {
    private enum CodingKeys: String, CodingKey { case format = "form", kept, scale }
    private enum Name: String, Codable { case zero, dense, sparse, mask, thinned, signs }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        switch try container.decode(Name.self, forKey: .format) {
        case .zero: self = .zero
        case .mask: self = .mask
        case .thinned: self = .thinned(try ThinnedGrid(from: decoder))
        case .signs: self = .signs(try container.decode(SignScaling.self, forKey: .scale))
        case .dense: self = .dense(try ValueFormat(from: decoder))
        case .sparse:
            let kept = try container.decode(Int.self, forKey: .kept)
            guard (0...Shape.elementLimit).contains(kept) else {
                throw DecodingError.dataCorruptedError(forKey: .kept, in: container, debugDescription: "\(kept) elements")
            }
            self = .sparse(kept: kept, try ValueFormat(from: decoder))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .zero: try container.encode(Name.zero, forKey: .format)
        case .mask: try container.encode(Name.mask, forKey: .format)
        case .thinned(let grid):
            try container.encode(Name.thinned, forKey: .format)
            try grid.encode(to: encoder)
        case .signs(let scaling):
            try container.encode(Name.signs, forKey: .format)
            try container.encode(scaling, forKey: .scale)
        case .dense(let values):
            try container.encode(Name.dense, forKey: .format)
            try values.encode(to: encoder)
        case .sparse(let kept, let values):
            try container.encode(Name.sparse, forKey: .format)
            try container.encode(kept, forKey: .kept)
            try values.encode(to: encoder)
        }
    }
}
