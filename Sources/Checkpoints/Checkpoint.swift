package import Core

/// A checkpoint on disk: its config and the headers of its parts. Tensor data is not read.
package struct Checkpoint: Sendable {
    package struct Part: Sendable {
        package let fileName: String
        package let header: SafetensorsHeader
    }

    /// The directory that holds the parts.
    package let directory: String
    package let parts: [Part]
    /// `config.json`, if it exists.
    package let config: JSONText?
    /// The names of all tensors, in byte order.
    package let tensorNames: [String]
    private let places: [ExactText: Place]

    private struct Place {
        let part: Int
        /// Among the tensors of the part.
        let position: Int
    }

    package static let singlePartName = "model.safetensors"
    package static let indexName = "model.safetensors.index.json"
    package static let configName = "config.json"
    fileprivate static let smallFileLimit = 256 << 20

    /// Opens a directory (through its index or its `model.safetensors`) or a single safetensors file.
    ///
    /// - Throws: `badData` if the files are inconsistent, `inputMissing` if they do not exist.
    package static func open(_ path: String, in files: any InputFiles) throws(TesseraError) -> Checkpoint {
        guard try files.isDirectory(path) else {
            let slash = path.lastIndex(of: "/")
            let name = slash.map { String(path[path.index(after: $0)...]) } ?? path
            let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
            return try Checkpoint(directory: directory, fileNames: [name], index: nil, files: files)
        }
        if try files.exists("\(path)/\(indexName)") {
            let index = try WeightMap(path: "\(path)/\(indexName)", files: files)
            return try Checkpoint(directory: path, fileNames: index.fileNames, index: index, files: files)
        }
        if try files.exists("\(path)/\(singlePartName)") {
            return try Checkpoint(directory: path, fileNames: [singlePartName], index: nil, files: files)
        }
        throw try noParts(in: path, files)
    }

    private init(
        directory: String, fileNames: [String], index: WeightMap?, files: any InputFiles
    ) throws(TesseraError) {
        var parts: [Part] = []
        var places: [ExactText: Place] = [:], byteCount = 0
        for name in fileNames.sortedByBytes() {
            let header = try SafetensorsHeader.read(path: "\(directory)/\(name)", in: files)
            for (position, entry) in header.tensors.enumerated() {
                let tensor = ExactText(entry.name)
                if let other = places.updateValue(Place(part: parts.count, position: position), forKey: tensor) {
                    throw TesseraError(
                        .badData, "is also in \(parts[other.part].fileName)", file: "\(directory)/\(name)", tensor: entry.name)
                }
                if let index, index.fileName(of: tensor) != name {
                    let told = index.fileName(of: tensor).map { "the index says it is in \($0)" } ?? "the index does not list it"
                    throw TesseraError(.badData, told, file: "\(directory)/\(name)", tensor: entry.name)
                }
            }
            parts.append(Part(fileName: name, header: header))
            byteCount += header.fileSize
            guard byteCount <= SizeLimit.total else {
                throw TesseraError(.badData, "the files have more than \(SizeLimit.total) bytes in total", file: directory)
            }
        }
        if let index { try index.check { places[$0] != nil } }
        self.directory = directory
        self.parts = parts
        self.places = places
        tensorNames = places.keys.map(\.string).sortedByBytes()
        let configPath = "\(directory)/\(Self.configName)"
        config =
            try files.exists(configPath)
            ? try JSONText(try files.read(configPath, maxBytes: Self.smallFileLimit), file: configPath) : nil
    }

    package func tensor(named name: String) -> (part: Int, entry: TensorEntry)? {
        places[ExactText(name)].map { ($0.part, parts[$0.part].header.tensors[$0.position]) }
    }

    private static func noParts(in path: String, _ files: any InputFiles) throws(TesseraError) -> TesseraError {
        let names = try files.list(path)
        if names.contains(where: { $0.hasPrefix("pytorch_model") && $0.hasSuffix(".bin") }) {
            return TesseraError(
                .badData, "is a PyTorch checkpoint: pickle files can run code; only safetensors is read", file: path,
                advice: "convert it: load it with transformers and call save_pretrained(..., safe_serialization=True)")
        }
        if let name = names.first(where: { $0.hasSuffix(".safetensors") }) {
            return TesseraError(
                .inputMissing, "contains neither \(singlePartName) nor \(indexName)", file: path,
                advice: "to use a single file, name it: \(path)/\(name)")
        }
        return TesseraError(.inputMissing, "contains no safetensors checkpoint", file: path)
    }
}

/// `model.safetensors.index.json`: which part holds which tensor.
private struct WeightMap {
    private let path: String
    private(set) var fileNames: [String] = []
    /// For each tensor its file's position in `fileNames`.
    private var files: [ExactText: Int] = [:]

    init(path: String, files source: any InputFiles) throws(TesseraError) {
        self.path = path
        var scanner = JSONScanner(try source.read(path, maxBytes: Checkpoint.smallFileLimit), file: path)
        var fileNames: [String] = [], files: [ExactText: Int] = [:], positions: [ExactText: Int] = [:]
        try scanner.object { scanner, key throws(TesseraError) in
            guard key == "weight_map" else {
                try scanner.value()
                return
            }
            try scanner.object { scanner, tensor throws(TesseraError) in
                let name = try scanner.string()
                guard !name.contains("/"), name != "..", name.hasSuffix(".safetensors") else {
                    throw TesseraError(
                        .badData, "the index names '\(name)', which is not a safetensors file beside it", file: path,
                        tensor: tensor)
                }
                if let position = positions[ExactText(name)] {
                    files[ExactText(tensor)] = position
                } else {
                    positions[ExactText(name)] = fileNames.count
                    files[ExactText(tensor)] = fileNames.count
                    fileNames.append(name)
                }
            }
        }
        guard !files.isEmpty else { throw TesseraError(.badData, "the index lists no tensors", file: path) }
        self.fileNames = fileNames
        self.files = files
    }

    func fileName(of tensor: ExactText) -> String? { files[tensor].map { fileNames[$0] } }

    /// - Throws: `badData` naming the first tensor, in byte order, that no part holds.
    func check(isHeld: (ExactText) -> Bool) throws(TesseraError) {
        guard let lacking = files.keys.filter({ !isHeld($0) }).min() else { return }
        throw TesseraError(
            .badData, "the index says it is in \(fileName(of: lacking) ?? "no part"), but that file does not contain it",
            file: path,
            tensor: lacking.string)
    }
}
