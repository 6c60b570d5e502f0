package import Core
import Operators
package import TaskVectors
import TensorKernels

/// A stored task vector that is added to a base's tensor (`RebuiltTensor`), and where its parts lie.
package struct VectorReference: Sendable, Hashable, Codable {
    /// A vector in its storage format, and where its tensors begin in a file.
    package struct Vector: Sendable, Hashable, Codable {
        package let format: StorageFormat
        /// Index into the files of the plan, or of the shard once it is on its way.
        package var file: Int
        /// Bytes from the beginning of the file, in the order of `StorageFormat.tensors`.
        package let offsets: [Int]

        package init(format: StorageFormat, file: Int, offsets: [Int]) {
            self.format = format
            self.file = file
            self.offsets = offsets
        }
    }

    package let shape: [Int]
    package private(set) var own: Vector?
    package private(set) var shared: Vector?
    /// What the vector is multiplied by.
    package let factor: Double
    /// `BaseIdentity.sample` of the tensor that the vector was taken from.
    package let baseSample: Digest

    package init(shape: [Int], own: Vector?, shared: Vector?, factor: Double, baseSample: Digest) {
        self.shape = shape
        self.own = own
        self.shared = shared
        self.factor = factor
        self.baseSample = baseSample
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        shape = try container.decodeShape(forKey: .shape)
        own = try container.decodeIfPresent(Vector.self, forKey: .own)
        shared = try container.decodeIfPresent(Vector.self, forKey: .shared)
        factor = try container.decode(Double.self, forKey: .factor)
        baseSample = try container.decode(Digest.self, forKey: .baseSample)
    }

    package mutating func renumberFiles(_ number: (Int) -> Int) {
        if let file = own?.file { own?.file = number(file) }
        if let file = shared?.file { shared?.file = number(file) }
    }

    /// Bytes of its parts.
    var byteCount: Int { [own, shared].reduce(0) { $0 + ($1?.format.byteCount(shape: shape) ?? 0) } }

    /// - Parameter isOnMethodsBase: whether `base` is also what the operation takes differences from.
    /// - Throws: `badData` when `base` is not what the vector was taken from, or when the parts do not fit their files.
    func open(
        on base: any ElementSource, isOnMethodsBase: Bool, in files: [any ByteSource], kernels: Kernels
    ) throws -> RebuiltTensor {
        guard try BaseIdentity.sample(of: base) == baseSample else {
            throw TesseraError(
                .badData, "the base is not the one that the store's task vectors were taken from",
                advice: "name the right one as 'base_model'; tessera inspect STORE --base DIR tells which it is")
        }
        return RebuiltTensor(
            base, vectors: try [shared, own].compactMap { try $0.map { try open($0, in: files, kernels) } }, factor: factor,
            isOnMethodsBase: isOnMethodsBase)
    }

    private func open(_ vector: Vector, in files: [any ByteSource], _ kernels: Kernels) throws -> PackedVector {
        let tensors = vector.format.tensors(shape: shape)
        guard tensors.count == vector.offsets.count else {
            throw TesseraError(
                .badData, "the shard names \(vector.offsets.count) parts of a task vector that has \(tensors.count)")
        }
        let parts = try zip(tensors, vector.offsets).map { tensor, offset in
            try StoredReference(file: vector.file, offset: offset, dtype: tensor.dtype, shape: tensor.shape).open(in: files)
        }
        return try PackedVector(vector.format, shape: shape, parts: parts, kernels: kernels)
    }
}
