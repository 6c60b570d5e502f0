package import Core

/// The vocabulary of a checkpoint: which text has which id. How text is split into tokens does not matter here.
package struct Tokenizer: Sendable {
    /// The kind of file that the vocabulary was read from.
    package enum Form: Sendable, Hashable {
        /// tokenizer.json, with its model type, such as `BPE` or `Unigram`; `nil` if the file names none.
        case fast(model: String?)
        /// vocab.json or vocab.txt with added tokens.
        case slow
    }

    package let directory: String
    package let form: Form
    /// Added tokens by text.
    package let added: [ExactText: AddedToken]
    /// The texts of the added tokens, in file order.
    package let addedOrder: [ExactText]
    private let ids: [ExactText: Int]
    private let texts: [ExactText?]

    /// Far above any real vocabulary; the largest today have about 260,000 tokens.
    static let idLimit = 1 << 22

    init(directory: String, form: Form, vocabulary: VocabularyBuilder) {
        self.directory = directory
        self.form = form
        added = vocabulary.added
        addedOrder = vocabulary.addedOrder
        ids = vocabulary.ids
        texts = vocabulary.texts
    }

    /// One more than the largest id, and so the minimum number of rows of a matrix for this vocabulary.
    package var idEnd: Int { texts.count }

    package func id(of text: ExactText) -> Int? { ids[text] }

    /// The token with this id; `nil` if there is none.
    package func text(of id: Int) -> ExactText? { texts.indices.contains(id) ? texts[id] : nil }

    package func isAdded(_ text: ExactText) -> Bool { added[text] != nil }

    /// The tokens with ids below `limit`, in ascending order.
    func tokens(below limit: Int?) -> some Sequence<(id: Int, text: ExactText)> {
        texts.prefix(limit ?? texts.count).enumerated().lazy.compactMap { id, text in text.map { (id, $0) } }
    }
}

/// Collects the tokens of one vocabulary and rejects inconsistencies.
struct VocabularyBuilder {
    private(set) var ids: [ExactText: Int] = [:]
    private(set) var texts: [ExactText?] = []
    private(set) var added: [ExactText: AddedToken] = [:]
    private(set) var addedOrder: [ExactText] = []
    private let file: String

    init(file: String) { self.file = file }

    /// - Throws: `badData` if the text already has another id, the id already has another text, or the id is too large.
    mutating func add(_ text: ExactText, id: Int) throws(TesseraError) {
        guard (0..<Tokenizer.idLimit).contains(id) else {
            throw TesseraError(
                .badData, "the token '\(text)' has the id \(id); ids must be from 0 to \(Tokenizer.idLimit - 1)", file: file)
        }
        if texts.count == id {
            texts.append(nil)
        } else if texts.count < id {
            texts += Array(repeating: nil, count: id + 1 - texts.count)
        }
        if let other = texts[id], other != text {
            throw TesseraError(.badData, "the tokens '\(other)' and '\(text)' have the same id \(id)", file: file)
        }
        texts[id] = text
        if let other = ids.updateValue(id, forKey: text), other != id {
            throw TesseraError(.badData, "the token '\(text)' has two ids, \(other) and \(id)", file: file)
        }
    }

    /// - Throws: like `add`.
    mutating func add(_ token: AddedToken) throws(TesseraError) {
        try add(token.text, id: token.id)
        if added.updateValue(token, forKey: token.text) == nil { addedOrder.append(token.text) }
    }
}
