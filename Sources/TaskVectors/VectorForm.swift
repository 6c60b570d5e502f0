package import Core
package import Operators

/// A grid of `2^bits` equidistant values: `x = (code − zero) · step` (arXiv 2503.06921, docs/task-vectors.md).
package struct Grid: Sendable, Hashable {
    /// The elements that share a step and a zero point.
    package enum Sharing: Sendable, Hashable {
        /// All of the tensor, over their range, as the paper has it: step float32, zero float64, since a range far from zero makes it large.
        case tensor
        /// A row of the last axis, over its range and zero: step bfloat16, zero a byte.
        case row
        /// So many consecutive elements, in C order: step bfloat16, zero by `Kernels.fittedZero`. The step is fitted to the elements.
        case run(Int)
    }

    /// 1...8.
    package let bits: Int
    package let sharing: Sharing

    package init(bits: Int, sharing: Sharing) {
        self.bits = bits
        self.sharing = sharing
    }

    package static let bitRange = 1...8
    /// Lengths of runs: powers of two up to a grain, so that no run lies in two grains.
    package static let runLengths = (4...13).map { 1 << $0 }

    package var largestCode: Int { (1 << bits) - 1 }

    /// Elements that share a step, in a tensor of that shape.
    func runLength(in shape: [Int]) -> Int {
        switch sharing {
        case .tensor: max(1, shape.reduce(1, *))
        case .row: max(1, shape.last ?? 1)
        case .run(let length): length
        }
    }

    /// Steps of a tensor of that shape.
    package func stepCount(in shape: [Int]) -> Int {
        let count = shape.reduce(1, *), length = runLength(in: shape)
        return sharing == .tensor ? 1 : (count + length - 1) / length
    }
}

/// How numbers are stored.
package enum ValueForm: Sendable, Hashable {
    /// Each as it is, in a floating type.
    case raw(DType)
    /// Each as a code on a grid.
    case grid(Grid)
}

/// How one tensor of a task vector is stored (docs/task-vectors.md).
package enum VectorForm: Sendable, Hashable {
    /// Not at all: every element is zero.
    case zero
    /// Every element.
    case dense(ValueForm)
    /// A bitmap of the elements that stayed, and those, `kept` of them. A grid's runs count all elements.
    case sparse(kept: Int, ValueForm)
    /// A bitmap of the elements that are those of the store's shared vector; the others are zero.
    case mask
}

/// One safetensors tensor that a form consists of.
package struct FormTensor: Sendable, Hashable {
    package enum Part: String, Sendable, Hashable {
        /// Packed codes, as bytes.
        case codes
        case steps
        case zeros
        /// Numbers as they are.
        case values
        /// A bit for each element, in the order of codes of one bit.
        case mask
    }

    package let part: Part
    package let dtype: DType
    package let shape: [Int]
    /// `nil` where the tensor is not written stretch by stretch.
    package let rate: StretchRate?
    /// Bytes.
    package let blockSize: Int

    fileprivate init(_ part: Part, _ dtype: DType, _ shape: [Int], rate: StretchRate? = nil, blockSize: Int? = nil) {
        self.part = part
        self.dtype = dtype
        self.shape = shape
        self.rate = rate
        self.blockSize = blockSize ?? rate?.blockSize ?? TreeDigest.blockSize
    }

    package var byteCount: Int { shape.reduce(1, *) * dtype.bitWidth / 8 }

    /// What a store calls it, after the tensor it is a part of.
    package func name(of tensor: String) -> String { "\(tensor).\(part.rawValue)" }
}

extension VectorForm {
    /// The tensors that hold a vector of that shape.
    package func tensors(shape: [Int]) -> [FormTensor] {
        let mask = FormTensor(.mask, .u8, [(shape.reduce(1, *) + 7) / 8], rate: StretchRate(bits: 1))
        return switch self {
        case .zero: []
        case .mask: [mask]
        case .dense(.raw(let dtype)):
            [FormTensor(.values, dtype, shape, rate: StretchRate(bits: dtype.bitWidth))]
        case .dense(.grid(let grid)):
            [FormTensor(.codes, .u8, [grid.codeBytes(shape.reduce(1, *))], rate: StretchRate(bits: grid.bits))]
                + grid.parameters(shape: shape)
        case .sparse(let kept, .raw(let dtype)): [mask, FormTensor(.values, dtype, [kept])]
        case .sparse(let kept, .grid(let grid)):
            // A block holds whole codes.
            [mask, FormTensor(.codes, .u8, [grid.codeBytes(kept)], blockSize: grid.bits << 20)]
                + grid.parameters(shape: shape)
        }
    }

    /// Bytes of a vector of that shape.
    package func byteCount(shape: [Int]) -> Int { tensors(shape: shape).reduce(0) { $0 + $1.byteCount } }
}

extension Grid {
    fileprivate func codeBytes(_ count: Int) -> Int { (count * bits + 7) / 8 }

    /// Steps and zero points. Those of a whole tensor and of rows are known before the walk over the elements, and written at once.
    fileprivate func parameters(shape: [Int]) -> [FormTensor] {
        let count = stepCount(in: shape)
        switch sharing {
        case .tensor:
            return [FormTensor(.steps, .f32, [count]), FormTensor(.zeros, .f64, [count])]
        case .row: return [FormTensor(.steps, .bf16, [count]), FormTensor(.zeros, .u8, [count])]
        case .run(let length): return [FormTensor(.steps, .bf16, [count], rate: StretchRate(unit: length, bits: 16))]
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
            throw DecodingError.dataCorruptedError(forKey: .bits, in: container, debugDescription: "\(bits) bits a code")
        }
        let sharing: Sharing
        if let length = try? container.decode(Int.self, forKey: .group) {
            guard Self.runLengths.contains(length) else {
                throw DecodingError.dataCorruptedError(forKey: .group, in: container, debugDescription: "groups of \(length)")
            }
            sharing = .run(length)
        } else {
            switch try container.decode(String.self, forKey: .group) {
            case "tensor": sharing = .tensor
            case "row": sharing = .row
            case let other:
                throw DecodingError.dataCorruptedError(forKey: .group, in: container, debugDescription: "the group '\(other)'")
            }
        }
        self.init(bits: bits, sharing: sharing)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(bits, forKey: .bits)
        switch sharing {
        case .tensor: try container.encode("tensor", forKey: .group)
        case .row: try container.encode("row", forKey: .group)
        case .run(let length): try container.encode(length, forKey: .group)
        }
    }
}

extension ValueForm: Codable {
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

extension VectorForm: Codable {
    private enum CodingKeys: String, CodingKey { case form, kept }
    private enum Name: String, Codable { case zero, dense, sparse, mask }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        switch try container.decode(Name.self, forKey: .form) {
        case .zero: self = .zero
        case .mask: self = .mask
        case .dense: self = .dense(try ValueForm(from: decoder))
        case .sparse:
            let kept = try container.decode(Int.self, forKey: .kept)
            guard kept >= 0 else {
                throw DecodingError.dataCorruptedError(forKey: .kept, in: container, debugDescription: "\(kept) elements")
            }
            self = .sparse(kept: kept, try ValueForm(from: decoder))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .zero: try container.encode(Name.zero, forKey: .form)
        case .mask: try container.encode(Name.mask, forKey: .form)
        case .dense(let values):
            try container.encode(Name.dense, forKey: .form)
            try values.encode(to: encoder)
        case .sparse(let kept, let values):
            try container.encode(Name.sparse, forKey: .form)
            try container.encode(kept, forKey: .kept)
            try values.encode(to: encoder)
        }
    }
}
