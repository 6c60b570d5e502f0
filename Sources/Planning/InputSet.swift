import Checkpoints
import Operators
import Recipes

/// The models of a recipe, opened: one entry for each input of the merge, in recipe order.
struct InputSet {
    struct Input {
        let reference: ModelReference
        let checkpoint: Checkpoint
        /// The checkpoint's directory relative to a root.
        let location: String
        /// The number of the checkpoint's first part when the parts of all inputs are counted in order.
        let firstFile: Int
        /// The parameters written at the model; none for a base that the recipe names only as base.
        let parameters: ParameterScope
        let line: Int
    }

    let inputs: [Input]
    /// The input that is the base, in whatever role the method gives it.
    let base: Int?

    var planned: [PlannedInput] {
        inputs.map { input in
            PlannedInput(
                reference: input.reference.description, location: input.location,
                parts: input.checkpoint.parts.map {
                    ManifestInput.Part(file: $0.fileName, size: $0.header.fileSize, headerDigest: $0.header.digest)
                })
        }
    }

    /// The model whose config and tokenizer the output gets: the base, else the first.
    var donor: Input { inputs[base ?? 0] }

    static func open(_ recipe: Recipe, method: any MergeMethod.Type, request: PlanRequest) throws -> InputSet {
        var problems: [TesseraError] = []
        func complain(_ problem: String, line: Int, advice: String? = nil) {
            problems.append(TesseraError(.badData, problem, file: recipe.file, line: line, advice: advice))
        }

        var wanted = recipe.models.map { (reference: $0.model.value, parameters: $0.parameters, line: $0.model.line) }
        for (index, entry) in wanted.enumerated() where wanted[..<index].contains(where: { $0.reference == entry.reference }) {
            complain(
                "the model '\(entry.reference)' is listed twice", line: entry.line, advice: "add the two weights and list it once"
            )
        }
        var base = recipe.baseModel.flatMap { named in wanted.firstIndex { $0.reference == named.value } }
        if base == nil, let named = recipe.baseModel {
            base = wanted.count
            wanted.append((named.value, ParameterScope(), named.line))
        }
        if method.inputs.base == .required, base == nil {
            complain(
                "the method '\(method.name)' computes from task vectors and needs a base", line: recipe.method.line,
                advice: "add a line 'base_model: PATH'")
        }
        let hasRole = method.inputs.givesBaseARole && base != nil
        let models = hasRole ? wanted.count - 1 : wanted.count
        if !method.inputs.models.contains(models) {
            let range = method.inputs.models
            let expected = range.count == 1 ? "\(range.lowerBound)" : "at least \(range.lowerBound)"
            let besides = hasRole ? " besides the base" : ""
            complain(
                "the method '\(method.name)' takes \(expected) \(range == 1...1 ? "model" : "models")\(besides), the recipe has \(models)",
                line: recipe.method.line)
        }

        var inputs: [Input] = []
        var files = 0
        for entry in wanted {
            do throws(TesseraError) {
                guard entry.reference.adapter == nil, entry.reference.model.revision == nil else {
                    throw TesseraError(
                        .badData, "'\(entry.reference)' has an adapter or a revision, which this version does not support",
                        file: recipe.file, line: entry.line)
                }
                let path = try request.roots.relativePath(of: entry.reference.path, workingDirectory: request.workingDirectory)
                guard let directory = request.roots.locate(path) else {
                    throw TesseraError(.inputMissing, "no such file or directory", file: entry.reference.path)
                }
                let checkpoint = try Checkpoint.open(directory)
                let location = try request.roots.relativePath(of: checkpoint.directory, workingDirectory: nil)
                inputs.append(
                    Input(
                        reference: entry.reference, checkpoint: checkpoint, location: location, firstFile: files,
                        parameters: entry.parameters, line: entry.line))
                files += checkpoint.parts.count
            } catch {
                problems.append(error)
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return InputSet(inputs: inputs, base: base)
    }
}
