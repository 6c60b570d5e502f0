import Checkpoints
import Core
import Recipes
import Tokenizers

/// The vocabularies of a recipe's models: brought together if the recipe says how, and checked to be the same if it does not.
struct Vocabularies {
    let recipe: Recipe
    let inputs: InputSet
    let files: any InputFiles

    /// - Returns: `nil` where the recipe leaves rows as they are.
    /// - Throws: `Problems` with the tokens that differ, or what is wrong with the recipe's own.
    func plan() throws -> VocabularyPlan? {
        if let tokenizer = recipe.tokenizer {
            return try VocabularyPlan(models: try models(), base: inputs.base, recipe: tokenizer, file: recipe.file)
        }
        guard try !areAllTheSame() else { return nil }
        let problems = VocabularyCheck(models: try models(), base: inputs.base, file: recipe.file).problems
        guard problems.isEmpty else {
            // The line that is missing stands beside 'merge_method'.
            throw Problems(
                problems.map {
                    var problem = $0
                    problem.line = recipe.method.line
                    return problem
                })
        }
        return nil
    }

    private func models() throws(TesseraError) -> [VocabularyModel] {
        var models: [VocabularyModel] = []
        for input in inputs.inputs {
            models.append(
                try VocabularyModel(
                    reference: input.reference, checkpoint: input.checkpoint, tokenizerDirectory: input.tokenizerDirectory,
                    rowCount: input.adapter?.rowCount, in: files))
        }
        for tokenizerModel in inputs.tokenizerModels {
            models.append(
                try VocabularyModel(
                    reference: tokenizerModel.reference, checkpoint: tokenizerModel.checkpoint, isInput: false, in: files))
        }
        return models
    }

    /// Whether every model that has such files has the same, as most fine-tunes do: then nobody has to read them as vocabularies.
    private func areAllTheSame() throws(TesseraError) -> Bool {
        var first: [[UInt8]?]?
        for input in inputs.inputs {
            var found: [[UInt8]?] = []
            for name in [Tokenizer.fastName, Tokenizer.addedName, "vocab.json", "vocab.txt"] {
                let path = "\(input.tokenizerDirectory)/\(name)"
                found.append(try files.exists(path) ? try files.read(path, maxBytes: Tokenizer.byteLimit) : nil)
            }
            guard found.contains(where: { $0 != nil }) else { continue }
            let size =
                input.adapter?.rowCount
                ?? input.checkpoint.config.flatMap { config in
                    VocabularyModel.sizeKey(in: config).flatMap { config.integer($0) }
                }
            found.append(size.map { Array("\($0)".utf8) })
            guard first == nil || first == found else { return false }
            first = found
        }
        return true
    }
}
