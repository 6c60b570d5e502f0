package import Core

/// The vocabulary of a checkpoint, as its tokenizer files give it: which text has which id. How text is split is not of interest
/// here.
package struct Tokenizer: Sendable {
    /// The file that the vocabulary was read from.
    package enum Form: Sendable, Hashable {
        /// tokenizer.json, with the type of its model, such as `BPE` or `Unigram`; `nil` where it does not say.
        case fast(model: String?)
        /// vocab.json or vocab.txt, and what was added to it.
        case slow
    }

    package let directory: String
    package let form: Form
    /// Added tokens by their text.
    package let added: [ExactText: AddedToken]
    /// The texts of the added tokens in the order of the file.
    package let addedOrder: [ExactText]
    private let ids: [ExactText: Int]
    private let texts: [ExactText?]

    /// Bounds that no real vocabulary comes near: the largest today have some 260,000 tokens.
    static let idLimit = 1 << 22

    init(directory: String, form: Form, vocabulary: VocabularyBuilder) {
        self.directory = directory
        self.form = form
        added = vocabulary.added
        addedOrder = vocabulary.addedOrder
        ids = vocabulary.ids
        texts = vocabulary.texts
    }

    /// One more than the largest id: rows that a matrix for this vocabulary has at least.
    package var idEnd: Int { texts.count }

    package func id(of text: ExactText) -> Int? { ids[text] }

    /// The token with this id; `nil` for a gap and beyond the end.
    package func text(of id: Int) -> ExactText? { texts.indices.contains(id) ? texts[id] : nil }

    package func isAdded(_ text: ExactText) -> Bool { added[text] != nil }

    /// The tokens below `limit` by ascending id.
    func tokens(below limit: Int?) -> some Sequence<(id: Int, text: ExactText)> {
        texts.prefix(limit ?? texts.count).enumerated().lazy.compactMap { id, text in text.map { (id, $0) } }
    }
}

/// Collects the tokens of one vocabulary and refuses what contradicts itself.
struct VocabularyBuilder {
    private(set) var ids: [ExactText: Int] = [:]
    private(set) var texts: [ExactText?] = []
    private(set) var added: [ExactText: AddedToken] = [:]
    private(set) var addedOrder: [ExactText] = []
    private let file: String

    init(file: String) { self.file = file }

    /// - Throws: `badData` when the text has another id already, the id another text, or the id is absurdly large.
    mutating func add(_ text: ExactText, id: Int) throws(TesseraError) {
        guard (0..<Tokenizer.idLimit).contains(id) else {
            throw TesseraError(
                .badData, "the token '\(text)' has the id \(id); ids lie between 0 and \(Tokenizer.idLimit - 1)", file: file)
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

    /// - Throws: as `add`.
    mutating func add(_ token: AddedToken) throws(TesseraError) {
        try add(token.text, id: token.id)
        if added.updateValue(token, forKey: token.text) == nil { addedOrder.append(token.text) }
    }
}
