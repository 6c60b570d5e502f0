package import Checkpoints
package import Core

/// The tokenizer files of the output: the primary model's, with tokens added and removed, and the chat template.
///
/// Edits change only the affected entries; all other bytes stay the same.
package struct TokenizerFiles: Sendable {
    /// The files that are looked for in every model; nothing else in Tessera writes them to the output.
    package static let names = [
        configName, Tokenizer.fastName, "tokenizer.model", "special_tokens_map.json", Tokenizer.addedName, "merges.txt",
        "vocab.json",
        "vocab.txt", ChatTemplates.fileName, ChatTemplates.legacyName,
    ]
    private static let configName = Tokenizer.configName

    private let directory: String
    /// Files of the tokenizer by other names, such as `spiece.model`.
    private let others: [String]
    private let changes: TokenizerChanges
    private let template: String?
    private let files: any InputFiles

    /// - Parameters:
    ///   - directory: the directory of the primary model.
    ///   - others: further files of its tokenizer.
    ///   - changes: from the vocabulary plan; empty if the recipe only sets a chat template.
    ///   - template: replaces the primary model's chat template.
    ///   - files: where the primary's are read.
    package init(
        directory: String, others: [String] = [], changes: TokenizerChanges = TokenizerChanges(), template: String? = nil,
        in files: any InputFiles
    ) {
        self.directory = directory
        self.others = others.filter { !Self.names.contains($0) }
        self.files = files
        self.changes = changes
        self.template = template
    }

    /// The files to write, and remarks for the user.
    ///
    /// - Throws: `badData` if the primary model's files cannot be edited.
    package func make() throws(TesseraError) -> (files: [SidecarFile], remarks: [String]) {
        var made: [SidecarFile] = []
        var remarks: [String] = []
        for name in Self.names where try files.exists(path(name)) {
            switch name {
            case Tokenizer.fastName where !changes.isEmpty: made.append(SidecarFile(name: name, bytes: try fastTokenizer()))
            case Self.configName: made.append(try config())
            case Tokenizer.addedName where !changes.isEmpty: made.append(SidecarFile(name: name, bytes: try addedTokens()))
            case "tokenizer.model" where !changes.isEmpty: remarks.append(Self.leftOut(name))
            case ChatTemplates.fileName where template != nil, ChatTemplates.legacyName where template != nil: break
            default: made.append(SidecarFile(name: name, copyOf: path(name)))
            }
        }
        for name in others {
            if changes.isEmpty {
                made.append(SidecarFile(name: name, copyOf: path(name)))
            } else {
                remarks.append(Self.leftOut(name))
            }
        }
        if let template { made.append(SidecarFile(name: ChatTemplates.fileName, bytes: Array(template.utf8))) }
        let hasFast = try files.exists(path(Tokenizer.fastName))
        guard changes.appended.isEmpty && changes.removed.isEmpty || hasFast else {
            throw TesseraError(
                .badData, "has no \(Tokenizer.fastName), which is needed to add tokens", file: directory,
                advice: "load its tokenizer with transformers and save it beside the weights")
        }
        return (made, remarks)
    }

    private static func leftOut(_ name: String) -> String {
        "\(name) is left out, because it does not contain the merged vocabulary; \(Tokenizer.fastName) does"
    }

    private func path(_ name: String) -> String { "\(directory)/\(name)" }

    private func read(_ name: String) throws(TesseraError) -> JSONText {
        try JSONText(try files.read(path(name), maxBytes: Tokenizer.byteLimit), file: path(name))
    }

    // MARK: tokenizer.json

    private func fastTokenizer() throws(TesseraError) -> [UInt8] {
        var json = try read(Tokenizer.fastName)
        if !changes.removed.isEmpty { try strip(&json) }
        let key = "added_tokens", elements = changes.appended.map(\.element)
        if json.json([key])?.utf8.first == UInt8(ascii: "[") {
            try json.append(elements, to: [key])
        } else if !elements.isEmpty {
            json.set(key, toJSON: "[\(elements.joined(separator: ", "))]")
        }
        return json.bytes
    }

    /// Removes tokens from the added tokens and from the model's vocabulary, with every merge that produces or uses them.
    private func strip(_ json: inout JSONText) throws(TesseraError) {
        if json.json(["added_tokens"])?.utf8.first == UInt8(ascii: "[") {
            try json.keep(in: ["added_tokens"]) { element throws(TesseraError) in
                var scanner = JSONScanner(element.value, file: path(Tokenizer.fastName))
                return try !changes.removed.contains(AddedToken.read(&scanner).id)
            }
        }
        guard let tokenizer = try Tokenizer.read(directory, in: files) else { return }
        let ordinary = Set(changes.removed.compactMap { tokenizer.text(of: $0) }.filter { !tokenizer.isAdded($0) })
        guard !ordinary.isEmpty else { return }
        guard tokenizer.form == .fast(model: "BPE") else {
            throw TesseraError(
                .badData,
                "has \(ordinary.count) tokens beyond the model's vocab_size, and only a BPE vocabulary can be truncated",
                file: path(Tokenizer.fastName), advice: "choose another model as the tokenizer's source")
        }
        try json.keep(in: ["model", "vocab"]) { member in !ordinary.contains(ExactText(member.key ?? "")) }
        guard json.has(["model", "merges"]) else { return }
        try json.keep(in: ["model", "merges"]) { element throws(TesseraError) in
            let (left, right) = try Self.merge(element.value, file: path(Tokenizer.fastName))
            return ![left, right, left + right].contains { ordinary.contains(ExactText($0)) }
        }
    }

    /// `"left right"` or `["left", "right"]`.
    private static func merge(_ json: [UInt8], file: String) throws(TesseraError) -> (left: String, right: String) {
        var scanner = JSONScanner(json, file: file)
        var parts: [String] = []
        if scanner.peek() == UInt8(ascii: "[") {
            try scanner.array { scanner throws(TesseraError) in parts.append(try scanner.string()) }
        } else {
            parts = try scanner.string().split(separator: " ", maxSplits: 1).map(String.init)
        }
        guard parts.count == 2 else { throw TesseraError(.badData, "has a merge that does not consist of two parts", file: file) }
        return (parts[0], parts[1])
    }

    // MARK: The other files

    private func config() throws(TesseraError) -> SidecarFile {
        guard template != nil || !changes.isEmpty else {
            return SidecarFile(name: Self.configName, copyOf: path(Self.configName))
        }
        var json = try read(Self.configName)
        let key = "added_tokens_decoder"
        if json.json([key])?.utf8.first == UInt8(ascii: "{") {
            // The file does not list ordinary tokens that become added tokens either.
            if !changes.removed.isEmpty {
                try json.keep(in: [key]) { member in !changes.removed.contains(Int(member.key ?? "") ?? -1) }
            }
            let known = Set((json.members([key]) ?? []).compactMap(\.key)),
                new = changes.appended.filter { !known.contains("\($0.id)") }
            try json.append(members: new.map { ("\($0.id)", $0.decoderValue) }, to: [key])
        }
        if let template { json.set("chat_template", to: template) }
        return SidecarFile(name: Self.configName, bytes: json.bytes)
    }

    private func addedTokens() throws(TesseraError) -> [UInt8] {
        var json = try read(Tokenizer.addedName)
        try json.keep(in: []) { member in !changes.removed.contains(Int(String(decoding: member.value, as: UTF8.self)) ?? -1) }
        let known = Set((json.members([]) ?? []).compactMap { $0.key.map { ExactText($0) } })
        let new = changes.appended.filter { !known.contains($0.text) }
        try json.append(members: new.map { ($0.text.string, "\($0.id)") }, to: [])
        return json.bytes
    }
}
