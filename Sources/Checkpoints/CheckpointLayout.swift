package import Core

/// The position of every byte of a part, decided before the part exists.
package struct PartLayout: Sendable, Hashable {
    package private(set) var fileName: String
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
    ///
    /// - Parameter positions: gets the position of each of `tensors` in the file.
    init(fileName: String, tensors: ArraySlice<NewTensor>, positions: inout [Int]) throws(TesseraError) {
        let byType = Dictionary(grouping: tensors.indices) { tensors[$0].dtype }
        let order = DType.allCases.reversed().flatMap { dtype in
            (byType[dtype] ?? []).sorted { tensors[$0].name.precedesInBytes(tensors[$1].name) }
        }
        let first = positions.count
        positions += Array(repeating: 0, count: tensors.count)
        for (position, index) in order.enumerated() { positions[first + index - tensors.startIndex] = position }
        var header = Array(repeating: UInt8(0), count: SafetensorsHeader.prefixBytes)
        header += #"{"__metadata__":{"format":"pt"}"#.utf8
        var offsets: [Range<Int>] = []
        offsets.reserveCapacity(order.count)
        var end = 0
        for index in order {
            let range = end..<end + tensors[index].byteCount
            header.append(UInt8(ascii: ","))
            header += tensors[index].headerEntry(range).utf8
            offsets.append(range)
            end = range.upperBound
        }
        header.append(UInt8(ascii: "}"))
        header += Array(repeating: 0x20, count: (Self.alignment - header.count % Self.alignment) % Self.alignment)
        let length = header.count - SafetensorsHeader.prefixBytes
        guard length <= Self.headerLimit else {
            throw TesseraError(
                .badData,
                "the header for \(order.count) tensors would be \(length) bytes; the Hugging Face Hub reads at most "
                    + "\(Self.headerLimit)",
                file: fileName, advice: "choose a smaller --max-part-size")
        }
        for index in 0..<SafetensorsHeader.prefixBytes { header[index] = UInt8(truncatingIfNeeded: length >> (8 * index)) }
        // Without the buffer's spare capacity: a plan keeps many headers.
        self.header = header.withUnsafeBufferPointer { Array($0) }
        headerDigest = try .sha256(of: header)
        let start = header.count
        self.tensors = zip(order, offsets).map { index, range in
            TensorEntry(
                name: tensors[index].name, dtype: tensors[index].dtype, shape: tensors[index].shape,
                range: start + range.lowerBound..<start + range.upperBound)
        }
        self.fileName = fileName
        fileSize = start + end
    }

    /// The same part in a folder.
    fileprivate func below(_ folder: String) -> PartLayout {
        var part = self
        part.fileName = "\(folder)/\(fileName)"
        return part
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

    package var byteCount: Int { Shape.count(shape) * dtype.bitWidth / 8 }

    /// What a header says about the tensor.
    ///
    /// - Parameter range: counted from the end of the header.
    fileprivate func headerEntry(_ range: Range<Int>) -> String {
        var entry = JSONText.quoted(name)
        entry += #":{"dtype":""#
        entry += dtype.rawValue
        entry += #"","shape":["#
        for (axis, size) in shape.enumerated() {
            if axis > 0 { entry += "," }
            entry += String(size)
        }
        entry += #"],"data_offsets":["#
        entry += String(range.lowerBound)
        entry += ","
        entry += String(range.upperBound)
        entry += "]}"
        return entry
    }
}

/// Where a layout has put a tensor.
package struct TensorPlace: Sendable, Hashable {
    package let part: Int
    /// Among the tensors of the part.
    package let position: Int
}

/// The parts of a checkpoint and its index.
package struct CheckpointLayout: Sendable, Hashable {
    package let parts: [PartLayout]
    /// The contents of `model.safetensors.index.json`; `nil` for a single part, which needs no index.
    package let index: [UInt8]?
    /// The group name of each part; empty if tensors were not laid out in groups.
    package let groups: [String]

    /// Where each tensor lies, in the order in which they were given, those of groups one group after the other.
    package let places: [TensorPlace]

    /// Packs tensors into parts in the given order. A new part begins when the next tensor would exceed the limit.
    ///
    /// - Parameter maxPartBytes: limit in bytes of tensor data; a larger tensor gets its own part.
    package init(tensors: [NewTensor], maxPartBytes: Int) throws(TesseraError) {
        let runs = Self.cut(tensors, maxPartBytes: maxPartBytes) { $0.byteCount }
        var parts: [PartLayout] = [], places: [TensorPlace] = []
        for (number, run) in runs.enumerated() {
            let name =
                runs.count == 1
                ? Checkpoint.singlePartName
                : "model-\(Self.fiveDigits(number + 1))-of-\(Self.fiveDigits(runs.count)).safetensors"
            try Self.append(tensors[run], as: name, to: &parts, &places)
        }
        self.parts = parts
        self.places = places
        self.groups = []
        index = parts.count > 1 ? Self.index(of: parts) : nil
    }

    /// Packs the tensors of each group into separate parts: `NAME.safetensors`, or numbered files if one is not enough. Such a
    /// layout has no index.
    ///
    /// - Parameter groups: the file name and tensors of each group. The tensors of one inner list stay in one file.
    package init(groups: [(name: String, tensors: [[NewTensor]])], maxPartBytes: Int) throws(TesseraError) {
        var parts: [PartLayout] = [], names: [String] = [], places: [TensorPlace] = []
        for group in groups {
            let runs = Self.cut(group.tensors, maxPartBytes: maxPartBytes) { $0.reduce(0) { $0 + $1.byteCount } }
            for (number, run) in runs.enumerated() {
                let suffix = runs.count == 1 ? "" : "-\(Self.fiveDigits(number + 1))-of-\(Self.fiveDigits(runs.count))"
                try Self.append(
                    group.tensors[run].flatMap(\.self)[...], as: "\(group.name)\(suffix).safetensors", to: &parts, &places)
                names.append(group.name)
            }
        }
        self.parts = parts
        self.places = places
        self.groups = names
        index = nil
    }

    /// Copies of a layout, each in a folder of its own, one after the other. Their indices are in none of them.
    package init(copiesOf layout: CheckpointLayout, in folders: [String]) {
        parts = folders.flatMap { folder in layout.parts.map { $0.below(folder) } }
        places = folders.indices.flatMap { copy in
            layout.places.map { TensorPlace(part: copy * layout.parts.count + $0.part, position: $0.position) }
        }
        groups = []
        index = nil
    }

    private static func append(
        _ tensors: ArraySlice<NewTensor>, as fileName: String, to parts: inout [PartLayout], _ places: inout [TensorPlace]
    ) throws(TesseraError) {
        var positions: [Int] = []
        let part = try PartLayout(fileName: fileName, tensors: tensors, positions: &positions)
        places += positions.map { TensorPlace(part: parts.count, position: $0) }
        parts.append(part)
    }

    /// A new run begins when the next element would exceed the limit.
    ///
    /// - Returns: the indices of each run; one empty run for no elements.
    private static func cut<Element>(
        _ elements: [Element], maxPartBytes: Int, byteCount: (Element) -> Int
    ) -> [Range<Int>] {
        var runs: [Range<Int>] = [], start = 0, bytes = 0
        for (index, element) in elements.enumerated() {
            let more = byteCount(element)
            if index > start, bytes + more > maxPartBytes {
                runs.append(start..<index)
                start = index
                bytes = 0
            }
            bytes += more
        }
        return runs + [start..<elements.count]
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
