package import Core

/// The position of every byte of a part, decided before the part exists.
package struct PartLayout: Sendable, Hashable {
    package let fileName: String
    /// The bytes of the file before the tensor data.
    package let header: [UInt8]
    /// SHA-256 of `header`.
    package let headerDigest: Digest
    /// In file order.
    package let tensors: [TensorEntry]
    package let fileSize: Int

    /// The largest header that the Hugging Face Hub parses.
    private static let headerLimit = 25_000_000
    private static let alignment = 8

    /// Lays tensors out exactly as the safetensors library does: wider types first, then by name; a compact header with the
    /// metadata first, padded with spaces to a multiple of 8.
    init(fileName: String, tensors: [NewTensor]) throws(TesseraError) {
        let byType = Dictionary(grouping: tensors, by: \.dtype)
        let sorted = DType.allCases.reversed().flatMap { dtype in
            (byType[dtype] ?? []).sorted { $0.name.precedesInBytes($1.name) }
        }
        var header = Array(repeating: UInt8(0), count: SafetensorsHeader.prefixBytes)
        header += #"{"__metadata__":{"format":"pt"}"#.utf8
        var offsets: [Range<Int>] = []
        var end = 0
        for tensor in sorted {
            let range = end..<end + tensor.byteCount
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            header += ",\(JSONText.quoted(tensor.name)):{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":[\(shape)],".utf8
            header += "\"data_offsets\":[\(range.lowerBound),\(range.upperBound)]}".utf8
            offsets.append(range)
            end = range.upperBound
        }
        header.append(UInt8(ascii: "}"))
        header += Array(repeating: 0x20, count: (Self.alignment - header.count % Self.alignment) % Self.alignment)
        let length = header.count - SafetensorsHeader.prefixBytes
        guard length <= Self.headerLimit else {
            throw TesseraError(
                .badData,
                "the header for \(sorted.count) tensors would be \(length) bytes; the Hugging Face Hub reads at most "
                    + "\(Self.headerLimit)",
                file: fileName, advice: "choose a smaller --max-part-size")
        }
        for index in 0..<SafetensorsHeader.prefixBytes { header[index] = UInt8(truncatingIfNeeded: length >> (8 * index)) }
        // Without the buffer's spare capacity: a plan keeps many headers.
        self.header = header.withUnsafeBufferPointer { Array($0) }
        headerDigest = try .sha256(of: header)
        let start = header.count
        self.tensors = zip(sorted, offsets).map { tensor, range in
            TensorEntry(
                name: tensor.name, dtype: tensor.dtype, shape: tensor.shape,
                range: start + range.lowerBound..<start + range.upperBound)
        }
        self.fileName = fileName
        fileSize = start + end
    }
}

/// A tensor to be written.
package struct NewTensor: Sendable, Hashable {
    package let name: String
    package let dtype: DType
    package let shape: [Int]

    package init(name: String, dtype: DType, shape: [Int]) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }

    package var byteCount: Int { shape.reduce(1, *) * dtype.bitWidth / 8 }
}

/// The parts of a checkpoint and its index.
package struct CheckpointLayout: Sendable, Hashable {
    package let parts: [PartLayout]
    /// The contents of `model.safetensors.index.json`; `nil` for a single part, which needs no index.
    package let index: [UInt8]?
    /// The group name of each part; empty if tensors were not laid out in groups.
    package let groups: [String]

    /// Packs tensors into parts in the given order. A new part begins when the next tensor would exceed the limit.
    ///
    /// - Parameter maxPartBytes: limit in bytes of tensor data; a larger tensor gets its own part.
    package init(tensors: [NewTensor], maxPartBytes: Int) throws(TesseraError) {
        let groups = Self.cut(tensors.map { [$0] }, maxPartBytes: maxPartBytes)
        var parts: [PartLayout] = []
        for (number, group) in groups.enumerated() {
            let name =
                groups.count == 1
                ? Checkpoint.singlePartName
                : "model-\(Self.fiveDigits(number + 1))-of-\(Self.fiveDigits(groups.count)).safetensors"
            parts.append(try PartLayout(fileName: name, tensors: group))
        }
        self.parts = parts
        self.groups = []
        index = parts.count > 1 ? Self.index(of: parts) : nil
    }

    /// Packs the tensors of each group into separate parts: `NAME.safetensors`, or numbered files if one is not enough. Such a
    /// layout has no index.
    ///
    /// - Parameter groups: the file name and tensors of each group. The tensors of one inner list stay in one file.
    package init(groups: [(name: String, tensors: [[NewTensor]])], maxPartBytes: Int) throws(TesseraError) {
        var parts: [PartLayout] = [], names: [String] = []
        for group in groups {
            let runs = Self.cut(group.tensors, maxPartBytes: maxPartBytes)
            for (number, run) in runs.enumerated() {
                let suffix = runs.count == 1 ? "" : "-\(Self.fiveDigits(number + 1))-of-\(Self.fiveDigits(runs.count))"
                parts.append(try PartLayout(fileName: "\(group.name)\(suffix).safetensors", tensors: run))
                names.append(group.name)
            }
        }
        self.parts = parts
        self.groups = names
        index = nil
    }

    /// A new run begins when the next list of tensors would exceed the limit.
    private static func cut(_ lists: [[NewTensor]], maxPartBytes: Int) -> [[NewTensor]] {
        var runs: [[NewTensor]] = [[]]
        var bytes = 0
        for tensors in lists {
            let more = tensors.reduce(0) { $0 + $1.byteCount }
            if !runs[runs.count - 1].isEmpty, bytes + more > maxPartBytes {
                runs.append([])
                bytes = 0
            }
            runs[runs.count - 1] += tensors
            bytes += more
        }
        return runs
    }

    private static func fiveDigits(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }

    private static func index(of parts: [PartLayout]) -> [UInt8] {
        let total = parts.reduce(0) { $0 + $1.fileSize - $1.header.count }
        let places = parts.flatMap { part in part.tensors.map { ($0.name, part.fileName) } }
            .sorted { $0.0.precedesInBytes($1.0) }
        let map = places.map { "    \(JSONText.quoted($0)): \(JSONText.quoted($1))" }.joined(separator: ",\n")
        return Array("{\n  \"metadata\": {\n    \"total_size\": \(total)\n  },\n  \"weight_map\": {\n\(map)\n  }\n}\n".utf8)
    }
}
