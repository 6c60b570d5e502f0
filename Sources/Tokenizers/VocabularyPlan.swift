package import Core
package import Operators
package import Recipes

/// The output's vocabulary, and the source of every row of every model's aligned matrix.
///
/// For the token τ with id `i` of the output, row `i` of model m is
/// ```
/// the recipe's source for τ     where the recipe forces it
/// m's own row of τ              where m has τ, with an id below its vocab_size
/// the recipe's source for τ     where the recipe has an entry for τ
/// the row of the only model that has τ; the base's row if several have it, the base among them;
/// the mean of all that have it, if the base does not; zero if none has it
/// ```
/// Rows without a token (ids that the tokenizer skips, and padding) are the mean of the model's other rows.
///
/// The planner makes one vocabulary plan per job, and row maps for each tensor with a vocabulary axis:
/// ```swift
/// let models = try inputs.map { try VocabularyModel(reference: $0.reference, checkpoint: $0.checkpoint, in: files) }
/// if let recipe = recipe.tokenizer {
///     let vocabulary = try VocabularyPlan(models: models, base: base, recipe: recipe, file: file)   // base_model, or nil
///     // For embeddings, heads and their biases, of shape [vocab_size, …] in every input of `holders`, ascending:
///     let maps = try vocabulary.rowMaps(holders: holders)          // one for each source of the tensor, in its order
///     // The output's shape is [vocabulary.rowCount, …]; source k is, on the worker,
///     // AlignedRows(matrices: sources, rowLength: rowLength, map: maps[k]).
///     let size = vocabulary.resize(&config)                        // config.json of the primary
///     let files = try TokenizerFiles(directory: vocabulary.primaryDirectory, changes: vocabulary.changes, in: files)
/// } else {
///     problems += VocabularyCheck(models: models, base: base, file: file).problems
/// }
/// ```
package struct VocabularyPlan: Sendable {
    /// The output's tokens by id; `nil` for an id without a token.
    package let tokens: [ExactText?]
    /// The number of rows of every aligned matrix: the ids, rounded up.
    package let rowCount: Int
    /// The model whose tokenizer files are the starting point for the output's.
    package let primary: Int
    package let changes: TokenizerChanges
    /// Remarks for the user.
    package let remarks: [String]

    private let models: [VocabularyModel]
    private let base: Int?
    private let file: String
    /// For each model and output id the model's own row, or −1.
    private let ownRows: [[Int32]]
    private let entries: [Int: TokenizerRecipe.Token]

    /// - Parameters:
    ///   - models: in file order, with tokenizer-only models last.
    ///   - base: the recipe's `base_model`; if `nil`, the first model's tokenizer is the base's, and no model's rows take
    ///     precedence.
    ///   - file: the name of the recipe in messages.
    /// - Throws: all problems of the recipe's tokens, with their lines.
    package init(models: [VocabularyModel], base: Int?, recipe: TokenizerRecipe, file: String) throws(Problems) {
        guard !models.isEmpty, base.map(models.indices.contains) ?? true else {
            throw Problems([TesseraError(.internal, "a vocabulary plan without models, or with a base that is not one of them")])
        }
        let vocabulary: OutputVocabulary
        do throws(TesseraError) {
            vocabulary = try .make(models: models, base: base ?? 0, recipe: recipe, file: file)
        } catch {
            throw Problems([error])
        }
        let multiple = recipe.padToMultipleOf ?? 1
        let (rounded, overflow) = vocabulary.texts.count.addingReportingOverflow(multiple - 1)
        guard multiple > 0, !overflow, multiple <= Tokenizer.idLimit else {
            throw Problems([
                TesseraError(.badData, "'pad_to_multiple_of' is too large", file: file, line: recipe.source.line)
            ])
        }
        rowCount = rounded / multiple * multiple
        tokens = vocabulary.texts
        primary = vocabulary.primary
        changes = vocabulary.changes
        self.models = models
        self.base = base
        self.file = file
        // A model without a tokenizer is assumed to have the base's.
        let assumed = models[base ?? 0].tokenizer
        ownRows = models.map { Self.ownRows(of: $0, assumed: assumed, tokens: vocabulary.texts) }
        entries = Dictionary(
            recipe.tokens.compactMap { token in vocabulary.ids[ExactText(token.text)].map { ($0, token) } },
            uniquingKeysWith: { first, _ in first })
        remarks = vocabulary.remarks + Self.remarks(tokens: tokens, models: models, ownRows: ownRows, entries: entries)
        let problems = checkEntries()
        guard problems.isEmpty else { throw Problems(problems) }
    }

    /// The directory of the primary model's tokenizer files.
    package var primaryDirectory: String { models[primary].tokenizer?.directory ?? "" }

    package func id(of text: String) -> Int? { tokens.firstIndex(of: ExactText(text)) }

    /// Updates the number of rows in a config.
    ///
    /// - Returns: whether the config has such a key.
    package func resize(_ config: inout JSONText) -> Bool { VocabularyModel.setSize(rowCount, in: &config) }

    private static func ownRows(of model: VocabularyModel, assumed: Tokenizer?, tokens: [ExactText?]) -> [Int32] {
        guard let tokenizer = model.tokenizer ?? assumed else { return Array(repeating: -1, count: tokens.count) }
        let limit = model.vocabularySize ?? .max
        return tokens.map { text in
            guard let text, let id = tokenizer.id(of: text), id < limit else { return -1 }
            return Int32(id)
        }
    }

    private static func remarks(
        tokens: [ExactText?], models: [VocabularyModel], ownRows: [[Int32]], entries: [Int: TokenizerRecipe.Token]
    ) -> [String] {
        var remarks: [String] = []
        let inputs = models.indices.filter { models[$0].isInput }
        let orphans = tokens.indices.filter { id in
            tokens[id] != nil && entries[id] == nil && inputs.allSatisfy { ownRows[$0][id] < 0 }
        }
        if !orphans.isEmpty {
            let examples = orphans.prefix(5).compactMap { tokens[$0] }.map { "'\($0)'" }.joined(separator: ", ")
            remarks.append("no model has a row for \(orphans.count) tokens; their rows are zero: \(examples)")
        }
        let gaps = tokens.count { $0 == nil }
        if gaps > 0 { remarks.append("\(gaps) ids of the tokenizer have no token; their rows are the mean of all others") }
        return remarks
    }

    // MARK: Rows

    /// The row maps of one tensor, one per source.
    ///
    /// - Parameter holders: the models that have the tensor, in the order of its sources.
    /// - Throws: if a token's source is not among them.
    package func rowMaps(holders: [Int]) throws(Problems) -> [RowMap] {
        guard holders.allSatisfy(models.indices.contains) else {
            throw Problems([TesseraError(.internal, "a tensor belongs to models that the vocabulary plan does not know")])
        }
        var maps = Array(repeating: RowMap(), count: holders.count)
        var problems: [TesseraError] = []
        for id in tokens.indices {
            do throws(TesseraError) {
                try appendRow(of: id, holders: holders, to: &maps)
            } catch {
                problems.append(error)
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        for index in maps.indices { maps[index].append(.padding, count: rowCount - tokens.count) }
        return maps
    }

    private func appendRow(of id: Int, holders: [Int], to maps: inout [RowMap]) throws(TesseraError) {
        guard tokens[id] != nil else {
            for index in maps.indices { maps[index].append(.padding) }
            return
        }
        let entry = entries[id], isForced = entry?.force == true
        var filler: RowMap.Origin?
        if isForced || holders.contains(where: { ownRows[$0][id] < 0 }) {
            if let entry {
                filler = try configured(entry, id: id, holders: holders)
            } else {
                filler = standard(id, holders: holders)
            }
        }
        for index in maps.indices {
            let own = ownRows[holders[index]][id]
            if let filler, isForced || own < 0 {
                maps[index].append(filler)
            } else {
                maps[index].append(.stored(RowMap.SourceRow(source: index, row: Int(own))))
            }
        }
    }

    /// The row of a token without a source in the recipe, for models that lack the token.
    private func standard(_ id: Int, holders: [Int]) -> RowMap.Origin {
        let rows = holders.indices.compactMap { index -> RowMap.SourceRow? in
            let row = ownRows[holders[index]][id]
            return row < 0 ? nil : RowMap.SourceRow(source: index, row: Int(row))
        }
        if rows.count > 1, let base, let row = rows.first(where: { holders[$0.source] == base }) { return .stored(row) }
        return rows.isEmpty ? .zero : rows.count == 1 ? .stored(rows[0]) : .mean(rows)
    }

    /// The row that the recipe assigns to a token.
    private func configured(_ token: TokenizerRecipe.Token, id: Int, holders: [Int]) throws(TesseraError) -> RowMap.Origin {
        let reference: ModelReference, row: (Int) -> Int?
        switch token.source {
        case .zero: return .zero
        case nil:
            throw problem(
                token, "needs a 'source': \(token.force ? "it is forced" : "not every model has the token")",
                advice: "add 'source: MODEL' or 'source: {kind: zero}'")
        case .model(let model):
            reference = model
            row = { ownRows[$0][id] < 0 ? nil : Int(ownRows[$0][id]) }
        case .modelToken(let model, let name):
            reference = model
            row = { self.row(of: name, in: $0) }
        }
        guard let model = models.firstIndex(where: { $0.reference == reference }), let source = holders.firstIndex(of: model)
        else {
            throw problem(
                token, "takes its row from '\(reference)', which does not have this tensor",
                advice: "name a model that has it, or write 'source: {kind: zero}'")
        }
        guard let row = row(model) else {
            throw problem(
                token, "takes its row from '\(reference)', which has no row for it",
                advice: "name a model that has the token, or write 'source: {kind: zero}'")
        }
        return .stored(RowMap.SourceRow(source: source, row: row))
    }

    private func row(of name: TokenizerRecipe.TokenName, in model: Int) -> Int? {
        let id: Int? =
            switch name {
            case .id(let id): id
            case .text(let text): (models[model].tokenizer ?? models[base ?? 0].tokenizer)?.id(of: ExactText(text))
            }
        let end = min(models[model].vocabularySize ?? .max, Tokenizer.idLimit)
        return id.flatMap { (0..<end).contains($0) ? $0 : nil }
    }

    /// Problems with the recipe's tokens that do not depend on the tensor.
    private func checkEntries() -> [TesseraError] {
        entries.sorted { $0.key < $1.key }.compactMap { _, token in
            let reference: ModelReference
            switch token.source {
            case .zero, nil: return nil
            case .model(let model), .modelToken(let model, _): reference = model
            }
            guard models.contains(where: { $0.reference == reference && $0.isInput }) else {
                let known = models.filter(\.isInput).map { "\($0.reference)" }
                return problem(
                    token, "takes its row from '\(reference)', which is not one of the merged models",
                    advice: "write one of \(known.joined(separator: ", "))")
            }
            return nil
        }
    }

    private func problem(_ token: TokenizerRecipe.Token, _ text: String, advice: String) -> TesseraError {
        TesseraError(.badData, "the token '\(token.text)' \(text)", file: file, line: token.line, advice: advice)
    }
}
