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
    /// An index beside `model.safetensors` that names parts which are not there.
    package private(set) var hasStaleIndex = false
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
            let name = FilePath.components(of: path).last ?? path
            return try Checkpoint(directory: FilePath.parent(of: path), fileNames: [name], index: nil, files: files)
        }
        if try files.exists("\(path)/\(indexName)") {
            let index = try WeightMap(path: "\(path)/\(indexName)", files: files)
            let present = Set(try files.list(path)), missing = index.fileNames.filter { !present.contains($0) }
            if present.contains(singlePartName), !index.fileNames.contains(singlePartName) {
                var single = try besides(index, isComplete: missing.isEmpty, in: path, files)
                single.hasStaleIndex = true
                return single
            }
            guard missing.isEmpty else { throw missingParts(missing.sortedByBytes(), in: path) }
            return try Checkpoint(directory: path, fileNames: index.fileNames, index: index, files: files)
        }
        if try files.exists("\(path)/\(singlePartName)") {
            return try Checkpoint(directory: path, fileNames: [singlePartName], index: nil, files: files)
        }
        if let names = try numberedParts(in: path, files) {
            return try Checkpoint(directory: path, fileNames: names, index: nil, files: files)
        }
        throw try noParts(in: path, files)
    }

    /// The parts of a checkpoint without an index, by their numbering: `NAME-00001-of-00003.safetensors`.
    ///
    /// - Returns: `nil` when there are none, or those of several checkpoints.
    /// - Throws: `inputMissing` naming the parts that are not there.
    private static func numberedParts(in path: String, _ files: any InputFiles) throws(TesseraError) -> [String]? {
        let pattern = /(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors/
        let numbered = try files.list(path).compactMap { name in name.wholeMatch(of: pattern).map { (name, $0.output) } }
        let sets = Set(numbered.map { "\($0.1.1)/\($0.1.3)" })
        guard sets.count == 1, let (_, first) = numbered.first, let count = Int(first.3), count > 0 else { return nil }
        let found = Set(numbered.map(\.0))
        let names = (1...count).map { number in
            let digits = "\(number)"
            return "\(first.1)-\(String(repeating: "0", count: 5 - digits.count))\(digits)-of-\(first.3).safetensors"
        }
        let missing = names.filter { !found.contains($0) }
        guard missing.isEmpty else { throw missingParts(missing, in: path) }
        return names
    }

    /// The `model.safetensors` beside an index of other parts. transformers reads the file; other programs, the parts.
    ///
    /// - Throws: `badData` where both are there.
    private static func besides(
        _ index: WeightMap, isComplete: Bool, in path: String, _ files: any InputFiles
    ) throws(TesseraError) -> Checkpoint {
        guard !isComplete else {
            throw TesseraError(
                .badData, "holds two checkpoints: \(singlePartName), and \(index.fileNames.count) parts that \(indexName) names",
                file: path, advice: "name \(path)/\(singlePartName) to use the former, or move it away to use the parts")
        }
        return try Checkpoint(directory: path, fileNames: [singlePartName], index: nil, files: files)
    }

    private static func missingParts(_ names: [String], in path: String) -> TesseraError {
        let rest = names.count > 1 ? " and \(names.count - 1) more" : ""
        return TesseraError(
            .inputMissing, "this part of the checkpoint\(rest) is missing", file: "\(path)/\(names.first ?? "")",
            advice: "download \(names.count > 1 ? "them" : "it"), or the whole model again")
    }

    private init(
        directory: String, fileNames: [String], index: WeightMap?, files: any InputFiles
    ) throws(TesseraError) {
        var parts: [Part] = [], names: [String] = []
        var byteCount = 0
        for name in fileNames.sortedByBytes() {
            let header = try SafetensorsHeader.read(path: "\(directory)/\(name)", in: files)
            parts.append(Part(fileName: name, header: header))
            byteCount += header.fileSize
            guard byteCount <= SizeLimit.total else {
                throw TesseraError(.badData, "the files have more than \(SizeLimit.total) bytes in total", file: directory)
            }
        }
        // Room for all of them at once: a table that grows hashes every name again.
        let count = parts.reduce(0) { $0 + $1.header.tensors.count }
        var places: [ExactText: Place] = [:]
        places.reserveCapacity(count)
        names.reserveCapacity(count)
        for (number, part) in parts.enumerated() {
            for (position, entry) in part.header.tensors.enumerated() {
                let place = Place(part: number, position: position)
                if let other = places.updateValue(place, forKey: ExactText(entry.name)) {
                    throw TesseraError(
                        .badData, "is also in \(parts[other.part].fileName)", file: "\(directory)/\(part.fileName)",
                        tensor: entry.name)
                }
                names.append(entry.name)
            }
        }
        try index?.check(names) { tensor in places[tensor].map { parts[$0.part].fileName } }
        self.directory = directory
        self.parts = parts
        self.places = places
        tensorNames = names.sortedByBytes()
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
        if let name = names.first(where: { $0.hasSuffix(".incomplete") || $0.hasSuffix(".part") || $0.hasSuffix(".aria2") }) {
            return TesseraError(
                .inputMissing, "its download was not finished: there is \(name), but no safetensors checkpoint", file: path,
                advice: "finish the download")
        }
        if let name = names.first(where: { $0.hasSuffix(".safetensors") }) {
            return TesseraError(
                .inputMissing, "contains neither \(singlePartName) nor \(indexName)", file: path,
                advice: "to use a single file, name it: \(path)/\(name)")
        }
        let inner = names.sortedByBytes().prefix(Self.searchedLimit).filter { name in
            [Manifest.fileName, singlePartName, indexName].contains { (try? files.exists("\(path)/\(name)/\($0)")) == true }
        }
        if !inner.isEmpty {
            let rest = inner.count > Self.namedLimit ? " and \(inner.count - Self.namedLimit) more" : ""
            return TesseraError(
                .inputMissing, "is no checkpoint, but a directory of \(inner.count == 1 ? "one" : "checkpoints")", file: path,
                advice: "name \(inner.count == 1 ? "it" : "one of them"): "
                    + inner.prefix(Self.namedLimit).map { "\(path)/\($0)" }.joined(separator: ", ") + rest)
        }
        if let format = names.lazy.compactMap({ ForeignFormat(of: $0) }).first {
            return TesseraError(.badData, format.problem, file: path, advice: format.advice)
        }
        return TesseraError(
            .inputMissing, "contains no safetensors checkpoint", file: path,
            advice: "name a directory with \(singlePartName) or \(indexName)")
    }

    /// Entries of a directory in which checkpoints are looked for, and how many of these are named.
    private static let searchedLimit = 1000, namedLimit = 8
}

/// Checkpoints of other kinds, told by the names of their files.
private enum ForeignFormat {
    case pickle, gguf, other(String)

    init?(of name: String) {
        let ending = name.split(separator: ".").last ?? ""
        switch ending {
        case "bin" where name.hasPrefix("training_args"): return nil
        case "bin", "pt", "pth", "ckpt": self = .pickle
        case "gguf": self = .gguf
        case "h5": self = .other("TensorFlow")
        case "msgpack": self = .other("Flax")
        case "onnx": self = .other("ONNX")
        default: return nil
        }
    }

    var problem: String {
        switch self {
        case .pickle: "is a PyTorch checkpoint: pickle files can run code; only safetensors is read"
        case .gguf: "is a GGUF checkpoint; only safetensors is read"
        case .other(let name): "is \("AEIOU".contains(name.prefix(1)) ? "an" : "a") \(name) checkpoint; only safetensors is read"
        }
    }

    var advice: String {
        switch self {
        case .gguf: BrokenDownload.ggufAdvice
        case .pickle, .other:
            "convert it: load it with transformers and call save_pretrained(..., safe_serialization=True)"
        }
    }
}

/// `model.safetensors.index.json`: which part holds which tensor.
private struct WeightMap {
    private let path: String
    private(set) var fileNames: [String] = []
    /// In the order of the file; `part` counts `fileNames`.
    private var entries: [(tensor: ExactText, part: Int)] = []

    init(path: String, files: any InputFiles) throws(TesseraError) {
        self.path = path
        let bytes = try files.read(path, maxBytes: Checkpoint.smallFileLimit)
        try BrokenDownload.check(bytes, isText: true, file: path)
        var scanner = JSONScanner(bytes, file: path)
        var fileNames: [String] = [], positions: [ExactText: Int] = [:], entries: [(tensor: ExactText, part: Int)] = []
        try scanner.object { scanner, key throws(TesseraError) in
            guard key == "weight_map" else {
                try scanner.value()
                return
            }
            try scanner.object { scanner, tensor throws(TesseraError) in
                let name = ExactText(try scanner.string())
                // Most tensors are in the file of the one before.
                if let last = entries.last, ExactText(fileNames[last.part]) == name {
                    entries.append((ExactText(tensor), last.part))
                    return
                }
                guard FilePath.isName(name.string), name.string.hasSuffix(".safetensors") else {
                    throw TesseraError(
                        .badData, "the index names '\(name)', which is not a safetensors file beside it", file: path,
                        tensor: tensor)
                }
                let position = positions[name] ?? fileNames.count
                if position == fileNames.count {
                    positions[name] = position
                    fileNames.append(name.string)
                }
                entries.append((ExactText(tensor), position))
            }
        }
        guard !entries.isEmpty else { throw TesseraError(.badData, "the index lists no tensors", file: path) }
        self.fileNames = fileNames
        self.entries = entries
    }

    /// Checks that index and parts agree on every tensor.
    ///
    /// - Parameters:
    ///   - held: the tensors of all parts, each once.
    ///   - file: the part that holds a tensor.
    func check(_ held: [String], file: (ExactText) -> String?) throws(TesseraError) {
        for (tensor, part) in entries {
            guard let actual = file(tensor) else {
                throw error("the index says it is in \(fileNames[part]), but that file does not contain it", tensor)
            }
            guard actual == fileNames[part] else {
                throw error("the index says it is in \(fileNames[part]), but \(actual) holds it", tensor)
            }
        }
        // Neither has a tensor twice.
        guard entries.count < held.count else { return }
        let listed = Set(entries.map(\.tensor))
        let unlisted = held.lazy.map { ExactText($0) }.first { !listed.contains($0) }
        throw error("the index does not list it", unlisted ?? "")
    }

    private func error(_ problem: String, _ tensor: ExactText) -> TesseraError {
        TesseraError(.badData, problem, file: path, tensor: tensor.string)
    }
}
