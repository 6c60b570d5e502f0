import Checkpoints
import Core

/// A file of the primary model that does not become one of the output.
package struct LeftOutFile: Sendable, Hashable, Encodable {
    package let name: String
    /// Why it is left out: a clause.
    package let reason: String
}

/// The files of a model that come along with what is merged from it, tokenizers aside: `ModelFiles` says which, configs say
/// whether code and folders belong to them.
struct ModelSidecars {
    /// Relative to the model's directory.
    private(set) var copied: [String] = []
    private(set) var leftOut: [LeftOutFile] = []
    private(set) var remarks: [String] = []

    private static let modulesName = "modules.json"
    /// Where configs name code of their own, by class.
    private static let autoMapKey = "auto_map"
    private static let configNames = [
        "tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    ]
    private static let byteLimit = 64 << 20
    private static let depthLimit = 4

    private let directory: String
    private let files: any InputFiles

    /// - Throws: what reading the directory throws, and `badData` for configs that are no JSON.
    init(of model: InputSet.Input, in files: any InputFiles) throws(TesseraError) {
        self.files = files
        directory = model.checkpoint.directory
        // A lone file of weights lies among files of any kind.
        guard let config = model.checkpoint.config else { return }
        let parts = Set(model.checkpoint.parts.map(\.fileName))
        let names = try files.list(directory).filter { !$0.hasPrefix(".") && !parts.contains($0) }
        let folders = try names.contains(Self.modulesName) ? moduleFolders() : []
        var code: [String: String] = [:]
        try collectCode(of: config, named: Checkpoint.configName, into: &code)
        for name in Self.configNames where names.contains(name) {
            try collectCode(of: try read(name), named: name, into: &code)
        }
        let hasCode = !code.isEmpty || names.contains(Self.modulesName)
        for name in names {
            if try files.isDirectory("\(directory)/\(name)") {
                try addFolder(name, isModule: folders.contains(name), hasCode: hasCode)
                continue
            }
            switch ModelFiles.kind(of: name) {
            case .sidecar: copied.append(name)
            case .code where hasCode: copied.append(name)
            case .code: leftOut.append(LeftOutFile(name: name, reason: "no config names code"))
            case .foreign(let reason): leftOut.append(LeftOutFile(name: name, reason: reason))
            case .tokenizer, .ownToEachModel: break
            }
        }
        for (file, config) in code.sorted(by: { $0.key < $1.key }) where !names.contains(file) {
            remarks.append(
                "\(config) names code in \(file), which '\(model.reference)' does not have: the output will not load without it")
        }
    }

    private func read(_ name: String) throws(TesseraError) -> JSONText {
        try JSONText(try files.read("\(directory)/\(name)", maxBytes: Self.byteLimit), file: "\(directory)/\(name)")
    }

    /// The files of Python that the config names by `module.Class`. Those of another repository (`ORG/NAME--module.Class`) are
    /// not among the model's files.
    private func collectCode(
        of config: JSONText, named name: String, into code: inout [String: String]
    ) throws(TesseraError) {
        for member in config.members([Self.autoMapKey]) ?? [] {
            let text = String(decoding: member.value, as: UTF8.self), values = JSONText.elements(of: text) ?? [text]
            for value in values where value.first == "\"" && !value.contains("--") {
                let parts = value.dropFirst().dropLast().split(separator: ".")
                guard parts.count > 1 else { continue }
                code["\(parts.dropLast().joined(separator: "/")).py"] = name
            }
        }
    }

    /// The folders of sentence-transformers' modules.
    private func moduleFolders() throws(TesseraError) -> Set<String> {
        let bytes = try files.read("\(directory)/\(Self.modulesName)", maxBytes: Self.byteLimit)
        let list = try JSONText(Array("{\"list\": ".utf8) + bytes + Array("}".utf8), file: "\(directory)/\(Self.modulesName)")
        var folders: Set<String> = []
        for element in list.elements(["list"]) ?? [] {
            if let path = try JSONText(Array(element.utf8)).string(["path"]), !path.isEmpty { folders.insert(path) }
        }
        return folders
    }

    private mutating func addFolder(_ name: String, isModule: Bool, hasCode: Bool) throws(TesseraError) {
        let inner = try tree(name, depth: 1)
        let isOfTokenizer = name == "additional_chat_templates"
        let chosen = isModule || isOfTokenizer ? inner : hasCode ? inner.filter { $0.hasSuffix(".py") } : []
        copied += chosen
        if chosen.isEmpty {
            leftOut.append(LeftOutFile(name: "\(name)/", reason: "a folder that no config names"))
        } else if isModule, chosen.contains(where: { ModelFiles.kind(of: $0) == .foreign("weights") }) {
            remarks.append("the weights in \(name) are copied, not merged")
        }
    }

    private func tree(_ folder: String, depth: Int) throws(TesseraError) -> [String] {
        var paths: [String] = []
        for name in try files.list("\(directory)/\(folder)") where !name.hasPrefix(".") && name != "__pycache__" {
            let path = "\(folder)/\(name)"
            if try !files.isDirectory("\(directory)/\(path)") {
                paths.append(path)
            } else if depth < Self.depthLimit {
                paths += try tree(path, depth: depth + 1)
            }
        }
        return paths
    }
}
