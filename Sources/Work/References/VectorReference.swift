package import Core
import Operators
package import TaskVectors
import TensorKernels

/// A task vector of a store, which is added to a base's tensor (`RebuiltTensor`).
package struct VectorReference: Sendable, Hashable, Codable {
    /// A vector in its storage format, and the place of its tensors in a file.
    package struct Vector: Sendable, Hashable, Codable {
        package let format: StorageFormat
        /// Index into the files of the plan or, in a lease, of the shard.
        package var file: Int
        /// For each of `StorageFormat.tensors`, bytes from the beginning of the file.
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
    /// The factor of the sum of both vectors.
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

    /// Stored bytes of both vectors.
    var byteCount: Int { [own, shared].reduce(0) { $0 + ($1?.format.byteCount(shape: shape) ?? 0) } }

    /// - Parameter isOnMethodsBase: whether the operation takes differences from `base`.
    /// - Throws: `badData` when the vector was taken from another base, or when the parts do not fit their files.
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
