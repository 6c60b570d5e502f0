package import Core
package import Operators
package import TaskVectors

/// An input file: its path under a root, and how to recognize it.
package struct InputFile: Sendable, Hashable, Codable {
    /// Relative to a root.
    package let path: String
    /// Bytes.
    package let size: Int
    /// SHA-256 of the safetensors header.
    package let headerDigest: Digest
    /// `FileStatus.identity` on the host that planned. It distinguishes files with equal headers, so that cached data of a
    /// replaced file is not used. Not part of the plan's identity.
    package let version: String
    /// What it holds; `nil` from coordinators of earlier builds.
    package let contents: ContentPin?

    package init(path: String, size: Int, headerDigest: Digest, version: String = "", contents: ContentPin? = nil) {
        self.path = path
        self.size = size
        self.headerDigest = headerDigest
        self.version = version
        self.contents = contents
    }

    /// The same file without what it holds: enough to know it by, and all that peers of earlier builds say of it.
    package var unpinned: InputFile { InputFile(path: path, size: size, headerDigest: headerDigest, version: version) }
}

/// One output tensor, and where its bytes go.
package struct OutputTensor: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType
    /// Bytes.
    package let byteCount: Int
    /// The index of the output part, and the tensor's first byte in the part.
    package let part: Int
    package let offset: Int
    /// Bytes of a block; the last one may be shorter.
    package let blockSize: Int

    package init(
        name: String, dtype: DType, byteCount: Int, part: Int, offset: Int, blockSize: Int
    ) {
        self.name = name
        self.dtype = dtype
        self.byteCount = byteCount
        self.part = part
        self.offset = offset
        self.blockSize = blockSize
    }

    /// - Parameters:
    ///   - output: of a codec or a storage format.
    ///   - part: the index of the output part.
    ///   - offset: the tensor's first byte in the part.
    package init(_ output: EncodedTensor, name: String, part: Int, offset: Int) {
        self.init(
            name: name, dtype: output.dtype, byteCount: output.byteCount, part: part, offset: offset, blockSize: output.blockSize)
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        dtype = try container.decode(DType.self, forKey: .dtype)
        byteCount = try container.decodeInteger(in: 0...8 * Shape.elementLimit, forKey: .byteCount)
        part = try container.decodeInteger(in: 0...Int(Int32.max), forKey: .part)
        offset = try container.decodeInteger(in: 0...Int.max / 2, forKey: .offset)
        blockSize = try container.decodeInteger(in: 1...Int(Int32.max), forKey: .blockSize)
    }

    package var blockCount: Int { TreeDigest.blockCount(ofBytes: byteCount, blockSize: blockSize) }
}

/// What to compute from the sources of one tensor.
package enum TensorOperation: Sendable, Hashable, Codable {
    /// A merge method computes values, and a codec stores them.
    case merge(MergeOperation)
    /// Task vectors are stored in a store's formats, or measured for that. The first source is the base.
    case encode(Encoding)
    /// The update that a merge method finds is stored as two factors, in the codec's type, without the base.
    case factor(MergeOperation, FactorShape)
    /// What the merge method must know about the models as wholes is measured (`MergeMethod.modelRounds`). There is no output.
    case measure(MergeOperation, ModelStage)
}

/// A merge method with its parameter values.
package struct MergeOperation: Sendable, Hashable, Codable {
    package let method: String
    package let values: ParameterValues
    /// The index of the base (`TensorInputs.base`).
    package let base: Int?
    /// The key of the tensor's random numbers; `nil` for methods that use none, so that the seed does not affect their plans.
    package let randomKey: UInt64?
    /// The library that the result depends on (`LinearAlgebra.identity`); `nil` for methods that need none.
    package let linearAlgebra: String?
    /// How the values are stored.
    package let codec: CodecReference

    package init(
        method: String, values: ParameterValues, base: Int?, randomKey: UInt64? = nil, linearAlgebra: String? = nil,
        codec: CodecReference
    ) {
        self.method = method
        self.values = values
        self.base = base
        self.randomKey = randomKey
        self.linearAlgebra = linearAlgebra
        self.codec = codec
    }
}

/// The name of an element codec, and the output type (`ElementCodec`).
package struct CodecReference: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType

    package init(name: String, dtype: DType) {
        self.name = name
        self.dtype = dtype
    }

    package static func rounding(to dtype: DType) -> CodecReference { CodecReference(name: Rounding.name, dtype: dtype) }

    /// - Throws: `protocolMismatch` for a codec that this build does not have, `badData` for a type that the codec cannot store.
    package func codec() throws(TesseraError) -> any ElementCodec {
        guard let codec = ElementCodecs.named(name) else {
            throw TesseraError(.protocolMismatch, "this build has no codec '\(name)'")
        }
        return try codec.init(dtype: dtype)
    }
}

/// The work on one tensor of the models: what to compute, from what, and where the results go.
package struct TensorWork: Sendable, Hashable, Codable {
    /// The tensor's name in the models.
    package let name: String
    /// The shape of every source as the operation sees it.
    package let shape: [Int]
    package let operation: TensorOperation
    package var sources: [SourceReference]
    /// What the method is given beside the sources.
    package var given: [GivenReference]
    /// For a merge, those of its codec for each value of its scale; for an encoding, those of its formats; none for what only
    /// measures.
    package let outputs: [OutputTensor]

    package init(
        name: String, shape: [Int], operation: TensorOperation, sources: [SourceReference], given: [GivenReference] = [],
        outputs: [OutputTensor]
    ) {
        self.name = name
        self.shape = shape
        self.operation = operation
        self.sources = sources
        self.given = given
        self.outputs = outputs
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        shape = try container.decodeShape(forKey: .shape)
        operation = try container.decode(TensorOperation.self, forKey: .operation)
        sources = try container.decode([SourceReference].self, forKey: .sources)
        given = try container.decodeIfPresent([GivenReference].self, forKey: .given) ?? []
        outputs = try container.decode([OutputTensor].self, forKey: .outputs)
    }

    private enum CodingKeys: CodingKey {
        case name, shape, operation, sources, given, outputs
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(shape, forKey: .shape)
        try container.encode(operation, forKey: .operation)
        try container.encode(sources, forKey: .sources)
        // Few methods are given anything.
        if !given.isEmpty { try container.encode(given, forKey: .given) }
        try container.encode(outputs, forKey: .outputs)
    }

    package var elementCount: Int { Shape.count(shape) }
    /// Bytes of all outputs.
    package var byteCount: Int { outputs.reduce(0) { $0 + $1.byteCount } }
    /// Bytes that progress counts: those of the outputs, or of the sources if there is no output.
    package var progressByteCount: Int { outputs.isEmpty ? sourceByteCount : byteCount }
    /// Bytes of all sources and of what is given beside them. A matrix that several aligned sources read counts once.
    package var sourceByteCount: Int {
        separateSources.reduce(0) { $0 + $1.byteCount } + given.reduce(0) { $0 + $1.stored.byteCount }
    }

    /// The sources, with aligned ones replaced by the matrices that they read, each once.
    var separateSources: [SourceReference] { nestedSources.filter { if case .aligned = $0 { false } else { true } } }

    /// The sources, and behind each aligned one the matrices that it reads, each once.
    var nestedSources: [SourceReference] {
        guard sources.contains(where: { if case .aligned = $0 { true } else { false } }) else { return sources }
        var seen: Set<SourceReference> = []
        func nested(_ source: SourceReference) -> [SourceReference] {
            guard case .aligned(let matrices, _) = source else { return [source] }
            return [source] + matrices.filter { seen.insert($0).inserted }.flatMap { nested($0) }
        }
        return sources.flatMap { nested($0) }
    }
}

/// The unit of dispatch and of retry: tensors of one layer, with everything that a worker needs to know of the plan.
package struct ShardWork: Sendable, Hashable, Codable {
    /// The shard's name in progress and error messages, such as `layers.17` or `embed_tokens`.
    package let label: String
    package let files: [InputFile]
    package let tensors: [TensorWork]

    package init(label: String, files: [InputFile], tensors: [TensorWork]) {
        self.label = label
        self.files = files
        self.tensors = tensors
    }

    /// The output tensors of all tensors, in the order in which blocks and digests number them.
    package var outputs: [OutputTensor] { tensors.flatMap(\.outputs) }
    package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }
}
