package import Core
package import TaskVectors

/// Where the parts of a stored task vector lie that is added to a base's tensor (`RebuiltTensor`).
package struct VectorReference: Sendable, Hashable, Codable {
    /// A vector in its format, and where its tensors begin in a file.
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
    package var own: Vector?
    package var shared: Vector?
    /// What the vector is multiplied by.
    package let factor: Double
    /// `BaseIdentity.sample` of the base's tensor that the vector belongs to.
    package let baseSample: Digest

    package init(shape: [Int], own: Vector?, shared: Vector?, factor: Double, baseSample: Digest) {
        self.shape = shape
        self.own = own
        self.shared = shared
        self.factor = factor
        self.baseSample = baseSample
    }

    package mutating func renumberFiles(_ number: (Int) -> Int) {
        if let file = own?.file { own?.file = number(file) }
        if let file = shared?.file { shared?.file = number(file) }
    }

    /// Bytes to read.
    var byteCount: Int { [own, shared].reduce(0) { $0 + ($1?.format.byteCount(shape: shape) ?? 0) } }
}
