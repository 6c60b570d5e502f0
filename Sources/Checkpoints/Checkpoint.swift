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
    private let places: [String: Place]

    private struct Place {
        let part: Int
        let entry: TensorEntry
    }

    package static let singlePartName = "model.safetensors"
    package static let indexName = "model.safetensors.index.json"
    package static let configName = "config.json"
    private static let smallFileLimit = 256 << 20

    /// Opens a directory (through its index or its `model.safetensors`) or a single safetensors file.
    ///
    /// - Throws: `badData` if the files are inconsistent, `inputMissing` if they do not exist.
    package static func open(_ path: String) throws(TesseraError) -> Checkpoint {
        guard isDirectory(path) else {
            let slash = path.lastIndex(of: "/")
            let name = slash.map { String(path[path.index(after: $0)...]) } ?? path
            let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
            return try Checkpoint(directory: directory, fileNames: [name], index: nil)
        }
        if fileExists("\(path)/\(indexName)") {
            let index = try weightMap(in: "\(path)/\(indexName)")
            return try Checkpoint(directory: path, fileNames: Array(Set(index.values)), index: index)
        }
        if fileExists("\(path)/\(singlePartName)") {
            return try Checkpoint(directory: path, fileNames: [singlePartName], index: nil)
        }
        throw try noParts(in: path)
    }

    private init(directory: String, fileNames: [String], index: [String: String]?) throws(TesseraError) {
        var parts: [Part] = []
        var places: [String: Place] = [:]
        for name in fileNames.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
            let header = try SafetensorsHeader.read(path: "\(directory)/\(name)")
            for entry in header.tensors {
                if let other = places.updateValue(Place(part: parts.count, entry: entry), forKey: entry.name) {
                    throw TesseraError(
                        .badData, "is also in \(parts[other.part].fileName)", file: "\(directory)/\(name)", tensor: entry.name)
                }
                if let index, index[entry.name] != name {
                    let told = index[entry.name].map { "the index says it is in \($0)" } ?? "the index does not list it"
                    throw TesseraError(.badData, told, file: "\(directory)/\(name)", tensor: entry.name)
                }
            }
            parts.append(Part(fileName: name, header: header))
        }
        for (tensor, name) in index ?? [:] where places[tensor] == nil {
            throw TesseraError(
                .badData, "the index says it is in \(name), but that file does not contain it",
                file: "\(directory)/\(Self.indexName)",
                tensor: tensor)
        }
        self.directory = directory
        self.parts = parts
        self.places = places
        let configPath = "\(directory)/\(Self.configName)"
        config =
            fileExists(configPath) ? try JSONText(try readFile(configPath, maxBytes: Self.smallFileLimit), file: configPath) : nil
    }

    /// The names of all tensors, in byte order.
    package var tensorNames: [String] { places.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

    package func tensor(named name: String) -> (part: Int, entry: TensorEntry)? {
        places[name].map { ($0.part, $0.entry) }
    }

    private static func weightMap(in path: String) throws(TesseraError) -> [String: String] {
        var scanner = JSONScanner(try readFile(path, maxBytes: smallFileLimit), file: path)
        var map: [String: String] = [:]
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
                map[tensor] = name
            }
        }
        guard !map.isEmpty else { throw TesseraError(.badData, "the index lists no tensors", file: path) }
        return map
    }

    private static func noParts(in path: String) throws(TesseraError) -> TesseraError {
        let names = try listDirectory(path)
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
