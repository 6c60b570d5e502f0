package import Checkpoints
package import Operators

/// An input part as a worker has to find it: where it lies under a root, and what it must be.
package struct InputFile: Sendable, Hashable, Codable {
    /// The path relative to a root.
    package let path: String
    /// Bytes.
    package let size: Int
    /// SHA-256 of the safetensors header, so that another file of the same size is told apart.
    package let headerDigest: Digest
    /// `ReadableFile.version` on the host that planned: another file of the same header is another input, so that nothing kept from an
    /// earlier job is taken for it. Not part of the plan's identity.
    package let version: String

    package init(path: String, size: Int, headerDigest: Digest, version: String = "") {
        self.path = path
        self.size = size
        self.headerDigest = headerDigest
        self.version = version
    }
}

/// Where one source of an output tensor lies.
package struct SourceReference: Sendable, Hashable, Codable {
    /// Index into the files of the plan, or of the shard once it is on its way.
    package var file: Int
    /// Bytes from the beginning of the file.
    package let offset: Int
    package let dtype: DType
    /// The adapter that is folded into the tensor as it is read.
    package var adapter: AdapterReference?

    package init(file: Int, offset: Int, dtype: DType, adapter: AdapterReference? = nil) {
        self.file = file
        self.offset = offset
        self.dtype = dtype
        self.adapter = adapter
    }

    /// Gives every file another number.
    mutating func renumberFiles(_ number: (Int) -> Int) {
        file = number(file)
        if let old = adapter?.file { adapter?.file = number(old) }
    }
}

/// Where the factors of a low-rank adapter lie (`LowRankUpdate`).
package struct AdapterReference: Sendable, Hashable, Codable {
    package struct Factor: Sendable, Hashable, Codable {
        /// Bytes from the beginning of the file.
        package let offset: Int
        package let dtype: DType
        package let count: Int
    }

    package var file: Int
    package let a: Factor
    package let b: Factor
    package let rank: Int
    package let scale: Double
    package let isTransposed: Bool
}

/// What makes matrices of different vocabularies one shape (`AlignedRows`).
package struct Alignment: Sendable, Hashable, Codable {
    /// Elements of a row.
    package let rowLength: Int
    /// Rows of each source as it is stored.
    package let rows: [Int]
    /// The sources in the order in which the maps count them.
    package let order: [Int]
    /// For each source, where the rows of its aligned matrix come from.
    package let maps: [RowMap]
}

/// One output tensor: what to compute, from what, and where the result goes.
package struct TensorWork: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType
    package let shape: [Int]
    /// The output part, and the tensor's first byte in it.
    package let part: Int
    package let offset: Int
    package let method: String
    package let values: ParameterValues
    /// The source that is the base in its role.
    package let base: Int?
    package var sources: [SourceReference]
    /// How the rows of the sources are brought into the order of the output's vocabulary.
    package let alignment: Alignment?
    /// The key of the tensor's random numbers; only for methods that draw some, so that a seed has no part in other plans.
    package let randomKey: UInt64?

    package init(
        name: String, dtype: DType, shape: [Int], part: Int, offset: Int, method: String, values: ParameterValues, base: Int?,
        sources: [SourceReference], alignment: Alignment? = nil, randomKey: UInt64? = nil
    ) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.part = part
        self.offset = offset
        self.method = method
        self.values = values
        self.base = base
        self.sources = sources
        self.alignment = alignment
        self.randomKey = randomKey
    }

    package var elementCount: Int { shape.reduce(1, *) }
    /// Bytes of the output.
    package var byteCount: Int { elementCount * dtype.bitWidth / 8 }
    /// Bytes of all sources together, each counted once.
    package var sourceByteCount: Int {
        sources.indices.reduce(0) { $0 + storedCount(ofSource: $1) * sources[$1].dtype.bitWidth / 8 }
    }

    /// Elements of a source as it is stored.
    package func storedCount(ofSource index: Int) -> Int {
        guard let alignment, alignment.rows.indices.contains(index) else { return elementCount }
        return alignment.rows[index] * alignment.rowLength
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

    package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }
    package var sourceByteCount: Int { tensors.reduce(0) { $0 + $1.sourceByteCount } }
}
