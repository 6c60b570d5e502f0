package import Core
package import Operators
package import TaskVectors

/// An input part as a worker has to find it: where it lies under a root, and what it must be.
package struct InputFile: Sendable, Hashable, Codable {
    /// The path relative to a root.
    package let path: String
    /// Bytes.
    package let size: Int
    /// SHA-256 of the safetensors header, so that another file of the same size is told apart.
    package let headerDigest: Digest
    /// `ReadableFile.version` on the host that planned: another file of the same header is another input, so that nothing kept
    /// from an earlier job is taken for it. Not part of the plan's identity.
    package let version: String

    package init(path: String, size: Int, headerDigest: Digest, version: String = "") {
        self.path = path
        self.size = size
        self.headerDigest = headerDigest
        self.version = version
    }
}

/// One tensor of the output: what the layout calls it and where its bytes go.
package struct OutputTensor: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType
    /// Bytes.
    package let byteCount: Int
    /// The output part, and the tensor's first byte in it.
    package let part: Int
    package let offset: Int
    /// Bytes of a block; the last one may be shorter.
    package let blockSize: Int

    package init(
        name: String, dtype: DType, byteCount: Int, part: Int, offset: Int, blockSize: Int = TreeDigest.blockSize
    ) {
        self.name = name
        self.dtype = dtype
        self.byteCount = byteCount
        self.part = part
        self.offset = offset
        self.blockSize = blockSize
    }

    package var blockCount: Int { TreeDigest.blockCount(ofBytes: byteCount, blockSize: blockSize) }
}

/// What is done with the sources of one tensor.
package enum TensorOperation: Sendable, Hashable, Codable {
    /// A merge method makes values, and a codec makes the output tensors of them.
    case merge(MergeOperation)
    /// Task vectors are brought into a store's form, or measured for it. The first source is the base.
    case encode(Encoding)
}

/// A merge method with all that it is bound to.
package struct MergeOperation: Sendable, Hashable, Codable {
    package let method: String
    package let values: ParameterValues
    /// The source that is the base in its role.
    package let base: Int?
    /// The key of the tensor's random numbers; only for methods that draw some, so that a seed has no part in other plans.
    package let randomKey: UInt64?
    /// What the values are stored with.
    package let codec: CodecReference

    package init(method: String, values: ParameterValues, base: Int?, randomKey: UInt64? = nil, codec: CodecReference) {
        self.method = method
        self.values = values
        self.base = base
        self.randomKey = randomKey
        self.codec = codec
    }
}

/// A codec by its name, and the type that it stores values in (`ElementCodec`).
package struct CodecReference: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType

    package init(name: String, dtype: DType) {
        self.name = name
        self.dtype = dtype
    }

    package static func rounding(to dtype: DType) -> CodecReference { CodecReference(name: Rounding.name, dtype: dtype) }

    /// - Throws: `protocolMismatch` when this build does not know the codec, and what the codec does not like about the type.
    package func codec() throws(TesseraError) -> any ElementCodec {
        guard let codec = ElementCodecs.named(name) else {
            throw TesseraError(.protocolMismatch, "this build does not know the codec '\(name)'")
        }
        return try codec.init(dtype: dtype)
    }
}

/// One tensor of the models: what to compute, from what, and where the results go.
package struct TensorWork: Sendable, Hashable, Codable {
    /// What the models call it.
    package let name: String
    /// The shape that the operation works on.
    package let shape: [Int]
    package let operation: TensorOperation
    package var sources: [SourceReference]
    /// Of a merge those of its codec; of an encoding those of its formats, none where it only measures.
    package let outputs: [OutputTensor]

    package init(
        name: String, shape: [Int], operation: TensorOperation, sources: [SourceReference], outputs: [OutputTensor]
    ) {
        self.name = name
        self.shape = shape
        self.operation = operation
        self.sources = sources
        self.outputs = outputs
    }

    package var elementCount: Int { shape.reduce(1, *) }
    /// Bytes of the output.
    package var byteCount: Int { outputs.reduce(0) { $0 + $1.byteCount } }
    /// Bytes that progress counts: of the output, or of the sources where nothing but numbers comes out.
    package var progressByteCount: Int { outputs.isEmpty ? sourceByteCount : byteCount }
    /// Bytes of all sources together. A matrix that several aligned sources read counts once.
    package var sourceByteCount: Int { separateSources.reduce(0) { $0 + $1.byteCount } }

    /// The sources, but in place of aligned ones the matrices that these read, each once.
    var separateSources: [SourceReference] {
        var seen: Set<SourceReference> = []
        return sources.flatMap { source in
            guard case .aligned(let matrices, _) = source else { return [source] }
            return matrices.filter { seen.insert($0).inserted }
        }
    }
}

/// The unit of dispatch and of retry: some tensors of one layer, with all that a worker needs to know of the plan.
package struct ShardWork: Sendable, Hashable, Codable {
    /// What the shard is called in progress and error messages, such as `layers.17` or `embed_tokens`.
    package let label: String
    package let files: [InputFile]
    package let tensors: [TensorWork]

    package init(label: String, files: [InputFile], tensors: [TensorWork]) {
        self.label = label
        self.files = files
        self.tensors = tensors
    }

    /// The output tensors of the whole shard: blocks and digests count them in this order.
    package var outputs: [OutputTensor] { tensors.flatMap(\.outputs) }
    package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }
}
