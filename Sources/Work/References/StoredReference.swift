package import Core
import Operators

/// A tensor as it is stored in a file (`StoredTensor`).
package struct StoredReference: Sendable, Hashable, Codable {
    /// Index into the files of the plan or, in a lease, of the shard.
    package var file: Int
    /// Bytes from the beginning of the file.
    package let offset: Int
    package let dtype: DType
    package let shape: [Int]

    package init(file: Int, offset: Int, dtype: DType, shape: [Int]) {
        self.file = file
        self.offset = offset
        self.dtype = dtype
        self.shape = shape
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        file = try container.decode(Int.self, forKey: .file)
        offset = try container.decode(Int.self, forKey: .offset)
        dtype = try container.decode(DType.self, forKey: .dtype)
        shape = try container.decodeShape(forKey: .shape)
    }

    package var elementCount: Int { Shape.count(shape) }
    package var byteCount: Int { elementCount * dtype.bitWidth / 8 }

    mutating func renumberFiles(_ number: (Int) -> Int) { file = number(file) }

    /// - Throws: `badData` when there is no such file, or when the tensor does not fit inside it.
    func open(in files: [any ByteSource]) throws(TesseraError) -> StoredTensor {
        guard files.indices.contains(file) else {
            throw TesseraError(.badData, "the shard names file \(file), but has \(files.count) files")
        }
        return try StoredTensor(files[file], offset: offset, dtype: dtype, count: elementCount)
    }
}
