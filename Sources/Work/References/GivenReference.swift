package import Core
package import Operators

/// A tensor that a method is given beside the sources (`GivenTensor`).
package struct GivenReference: Sendable, Hashable, Codable {
    package let role: GivenTensor.Role
    package private(set) var stored: StoredReference

    package init(_ role: GivenTensor.Role, _ stored: StoredReference) {
        self.role = role
        self.stored = stored
    }

    package mutating func renumberFiles(_ number: (Int) -> Int) { stored.renumberFiles(number) }

    /// - Throws: `badData` when the tensor does not fit inside its file.
    func open(in files: [any ByteSource]) throws(TesseraError) -> GivenTensor {
        GivenTensor(role, shape: stored.shape, tensor: try stored.open(in: files))
    }
}

extension TensorWork {
    /// Opens what the method is given beside the sources.
    ///
    /// - Parameter files: the files of the shard, in order.
    /// - Throws: `badData` when tensors do not fit their files.
    package func openGiven(in files: [any ByteSource]) throws(TesseraError) -> [GivenTensor] {
        var opened: [GivenTensor] = []
        for reference in given { opened.append(try reference.open(in: files)) }
        return opened
    }
}
