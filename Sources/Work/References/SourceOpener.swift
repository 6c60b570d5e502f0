package import Core
package import Operators
package import TensorKernels

/// Opens the sources of one tensor. Equal references become the same source, so that shared factors are decoded once.
private struct SourceOpener {
    let files: [any ByteSource]
    /// The source that the operation takes differences from.
    let base: SourceReference?
    let kernels: Kernels
    private var opened: [SourceReference: any ElementSource] = [:]

    init(files: [any ByteSource], base: SourceReference?, kernels: Kernels) {
        self.files = files
        self.base = base
        self.kernels = kernels
    }

    mutating func open(_ reference: SourceReference) throws -> any ElementSource {
        if let source = opened[reference] { return source }
        let source: any ElementSource
        switch reference {
        case .stored(let stored): source = try stored.open(in: files)
        case .lowRank(let matrix, let update):
            source = try update.open(open(matrix), shape: matrix.shape, isOnMethodsBase: matrix == base, in: files)
        case .rescaled(let matrix, let magnitudes):
            source = try magnitudes.open(open(matrix), shape: matrix.shape, in: files)
        case .residual(let matrix, let residual): source = try residual.open(open(matrix), shape: matrix.shape)
        case .transposed(let matrices, let transpose): source = try transpose.open(open(matrices))
        case .packed(let origin, let vector):
            source = try vector.open(on: open(origin), isOnMethodsBase: origin == base, in: files, kernels: kernels)
        case .aligned(let matrices, let alignment):
            var sources: [any ElementSource] = []
            for matrix in matrices { sources.append(try open(matrix)) }
            source = try alignment.open(sources)
        }
        opened[reference] = source
        return source
    }
}

extension [SourceReference] {
    /// Opens the sources of one tensor.
    ///
    /// - Parameters:
    ///   - base: the source that differences are taken from.
    ///   - files: that the references count.
    /// - Throws: `badData` when sources do not fit their files, each other or the number of elements; `io` when they cannot be
    ///   read.
    package func open(
        elements: Int, base: SourceReference?, in files: [any ByteSource], kernels: Kernels
    ) throws -> [any ElementSource] {
        var opener = SourceOpener(files: files, base: base, kernels: kernels)
        return try map { reference in
            let source = try opener.open(reference)
            guard source.count == elements else {
                throw TesseraError(.badData, "a source has \(source.count) elements, which do not fit a tensor of \(elements)")
            }
            return source
        }
    }
}

extension TensorWork {
    /// Opens the sources.
    ///
    /// - Parameter files: the files of the shard, in order.
    /// - Throws: `badData` when sources do not fit their files, each other or the tensor's shape; `io` when they cannot be read.
    package func openSources(in files: [any ByteSource], kernels: Kernels) throws -> [any ElementSource] {
        try sources.open(elements: elementCount, base: base, in: files, kernels: kernels)
    }

    /// The source that the operation takes differences from, if there is one.
    private var base: SourceReference? {
        let index: Int?
        switch operation {
        case .merge(let merge), .factor(let merge, _), .measure(let merge, _): index = merge.base
        case .encode: index = 0
        }
        return index.flatMap { sources.indices.contains($0) ? sources[$0] : nil }
    }
}
