package import Core

extension Tokenizer {
    package static let fastName = "tokenizer.json"
    package static let configName = "tokenizer_config.json"
    package static let addedName = "added_tokens.json"
    private static let vocabularyNames = ["vocab.json", "vocab.txt"]

    /// The largest real files have about 40 megabytes.
    package static let byteLimit = 256 << 20

    /// Reads the tokenizer of a checkpoint: tokenizer.json if it exists, otherwise vocab.json or vocab.txt with the additions of
    /// added_tokens.json and tokenizer_config.json.
    ///
    /// - Returns: `nil` when the directory holds none of these (a SentencePiece `tokenizer.model` alone is not read).
    /// - Throws: `badData` for a file that is not what its name says or contradicts itself, `io` and the like when it cannot be
    ///   read.
    package static func read(_ directory: String, in files: any InputFiles) throws(TesseraError) -> Tokenizer? {
        if try files.exists("\(directory)/\(fastName)") { return try readFast(directory, files) }
        var present: [String] = []
        for name in vocabularyNames where try files.exists("\(directory)/\(name)") { present.append(name) }
        guard let name = present.first else { return nil }
        var builder = VocabularyBuilder(file: "\(directory)/\(name)")
        if name == "vocab.json" {
            var scanner = JSONScanner(try files.read("\(directory)/\(name)", maxBytes: byteLimit), file: "\(directory)/\(name)")
            try readMap(&scanner, into: &builder)
            try finish(&scanner)
        } else {
            try readLines("\(directory)/\(name)", files, into: &builder)
        }
        try readAdditions(directory, files, into: &builder)
        return Tokenizer(directory: directory, form: .slow, vocabulary: builder)
    }

    // MARK: tokenizer.json

    private static func readFast(_ directory: String, _ files: any InputFiles) throws(TesseraError) -> Tokenizer {
        let path = "\(directory)/\(fastName)"
        var scanner = JSONScanner(try files.read(path, maxBytes: byteLimit), file: path)
        var builder = VocabularyBuilder(file: path)
        var additions: [AddedToken] = []
        var type: String?, hasModel = false
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "added_tokens" where scanner.peek() == UInt8(ascii: "["):
                try scanner.array { scanner throws(TesseraError) in additions.append(try AddedToken.read(&scanner)) }
            case "model":
                hasModel = try readModel(&scanner, type: &type, into: &builder)
            default: try scanner.value()
            }
        }
        try finish(&scanner)
        guard hasModel else { throw TesseraError(.badData, "has no 'model' with a 'vocab'", file: path) }
        for token in additions { try builder.add(token) }
        return Tokenizer(directory: directory, form: .fast(model: type), vocabulary: builder)
    }

    /// - Returns: whether it has a vocabulary.
    private static func readModel(
        _ scanner: inout JSONScanner, type: inout String?, into builder: inout VocabularyBuilder
    ) throws(TesseraError) -> Bool {
        var hasVocabulary = false
        var found = type
        try scanner.object { scanner, key throws(TesseraError) in
            switch (key, scanner.peek()) {
            case ("type", UInt8(ascii: "\"")): found = try scanner.string()
            case ("vocab", UInt8(ascii: "[")):
                try readList(&scanner, into: &builder)
                hasVocabulary = true
            case ("vocab", _):
                try readMap(&scanner, into: &builder)
                hasVocabulary = true
            default: try scanner.value()
            }
        }
        type = found
        return hasVocabulary
    }

    /// `{"text": id}` (BPE, WordPiece and WordLevel).
    private static func readMap(_ scanner: inout JSONScanner, into builder: inout VocabularyBuilder) throws(TesseraError) {
        try scanner.object { scanner, text throws(TesseraError) in
            try builder.add(ExactText(text), id: try scanner.natural())
        }
    }

    /// `[["text", score]]` (Unigram); the id is the index.
    private static func readList(_ scanner: inout JSONScanner, into builder: inout VocabularyBuilder) throws(TesseraError) {
        var id = 0
        try scanner.array { scanner throws(TesseraError) in
            var text: String?
            try scanner.array { scanner throws(TesseraError) in
                if text == nil { text = try scanner.string() } else { try scanner.value() }
            }
            guard let text else { throw scanner.error("vocabulary entry without text") }
            try builder.add(ExactText(text), id: id)
            id += 1
        }
    }

    private static func finish(_ scanner: inout JSONScanner) throws(TesseraError) {
        guard scanner.peek() == nil else { throw scanner.error("unexpected data after the object") }
    }

    // MARK: The older files

    /// One token per line; the id is the line number, from 0.
    private static func readLines(
        _ path: String, _ files: any InputFiles, into builder: inout VocabularyBuilder
    ) throws(TesseraError) {
        var lines = try files.read(path, maxBytes: byteLimit).split(
            separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        for (id, line) in lines.enumerated() {
            let bytes = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw TesseraError(.badData, "the token is not valid UTF-8", file: path, line: id + 1)
            }
            try builder.add(ExactText(text), id: id)
        }
    }

    /// The texts and ids in added_tokens.json. Entries in tokenizer_config.json take precedence.
    private static func readAdditions(
        _ directory: String, _ files: any InputFiles, into builder: inout VocabularyBuilder
    ) throws(TesseraError) {
        let described = try readDecoder("\(directory)/\(configName)", files)
        for token in described { try builder.add(token) }
        let path = "\(directory)/\(addedName)"
        guard try files.exists(path) else { return }
        var scanner = JSONScanner(try files.read(path, maxBytes: byteLimit), file: path)
        var found: [AddedToken] = []
        try scanner.object { scanner, text throws(TesseraError) in
            found.append(AddedToken(id: try scanner.natural(), text: ExactText(text)))
        }
        try finish(&scanner)
        for token in found.sorted(by: { $0.id < $1.id }) where builder.added[token.text]?.id != token.id {
            try builder.add(token)
        }
    }

    /// `added_tokens_decoder`: `{"id": {"content": …, flags}}`.
    private static func readDecoder(_ path: String, _ files: any InputFiles) throws(TesseraError) -> [AddedToken] {
        guard try files.exists(path) else { return [] }
        var scanner = JSONScanner(try files.read(path, maxBytes: byteLimit), file: path)
        var tokens: [AddedToken] = []
        try scanner.object { scanner, key throws(TesseraError) in
            guard key == "added_tokens_decoder", scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                return
            }
            try scanner.object { scanner, key throws(TesseraError) in
                guard let id = Int(key) else { throw scanner.error("'\(key)' is not a token id") }
                tokens.append(try AddedToken.read(&scanner, id: id))
            }
        }
        try finish(&scanner)
        return tokens.sorted { $0.id < $1.id }
    }
}
