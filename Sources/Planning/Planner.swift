import Checkpoints
package import Core
import Operators
import Recipes
import Tokenizers
package import Work

/// Makes a plan from a recipe and the headers of its inputs. Reads no tensor data, and reports every problem at once.
package enum Planner {
    /// The plan of the stage that follows those whose statistics are given: a function of the request, the statistics and the
    /// files that the request names, which have to be the same in each stage (`PlanRequest.pinnedFiles`).
    ///
    /// - Parameter statistics: of each analysis stage so far, by the models' name for a tensor.
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs; `badData` for inputs that have changed
    ///   since the first stage; `internal` for statistics that are not those of the recipe's stages.
    package static func plan(_ request: PlanRequest, after statistics: [[ExactText: TensorStatistics]] = []) throws -> Plan {
        let files = PinnedFiles(request.files)
        let outcome = Result { () throws -> Plan in try plan(request, reading: files, after: statistics) }
        // A file that was changed may be why the stage cannot be planned: that is said first.
        let isComplete = if case .success = outcome { true } else { false }
        try request.check(files.identities, isComplete: isComplete)
        var made = try outcome.get()
        made.pinnedFiles = files.identities
        return made
    }

    private static func plan(
        _ request: PlanRequest, reading files: PinnedFiles, after statistics: [[ExactText: TensorStatistics]]
    ) throws -> Plan {
        var request = request
        request.roots = request.roots.reading(files)
        return switch try JobRecipe.parse(text: request.recipe, file: request.recipeName, strict: request.strict) {
        case .merge(let recipe): try plan(recipe, request, after: statistics)
        case .store(let recipe): try StorePlanner.plan(recipe, request: request, after: statistics)
        }
    }

    private static func plan(
        _ recipe: Recipe, _ request: PlanRequest, after statistics: [[ExactText: TensorStatistics]]
    ) throws -> Plan {
        let method = try mergeMethod(of: recipe)
        let parameters = ParameterNames(recipe: recipe, method: method)
        var warnings = recipe.warnings + parameters.warnings()
        func throwIfStrict() throws(Problems) {
            if request.strict, !warnings.isEmpty { throw Problems(warnings) }
        }
        try throwIfStrict()
        let inputs = try InputSet.open(recipe, request: request, problems: parameters.problems())
        let quantized = Quantization.problems(recipe, method: method, inputs: inputs)
        guard quantized.isEmpty else { throw Problems(quantized) }
        var list = OutputTensorList(recipe: recipe, method: method, inputs: inputs)
        let specs = try list.specs()
        warnings += parameters.uselessFilters(specs) + ModelDifferences.warnings(recipe, inputs: inputs)
        try throwIfStrict()
        let vocabulary = try Vocabularies(recipe: recipe, inputs: inputs, files: request.files).plan()
        var planner = TensorPlanner(
            recipe: recipe, method: method, inputs: inputs, vocabulary: vocabulary, seed: request.seed)
        var (tensors, remarks) = try planner.plan(specs)

        let merged = try MergedOutputs(tensors.map { ($0.name, $0.outputs) }, maxPartBytes: request.maxPartBytes)
        let layout = merged.layout
        let sidecars = try Sidecars(
            recipe: recipe, inputs: inputs, roots: request.roots, layout: layout, vocabulary: vocabulary,
            dtype: floatingType(of: tensors), layerOrigins: list.layerOrigins
        ).make()
        // Every stage looks at every file, so that none can change in between.
        if !method.modelSums.isEmpty {
            let measured = tensors.filter { $0.method == method.name }
            guard let found = statistics.first else {
                return try analysisStage(of: recipe, method, inputs, measured, request: request)
            }
            planner.sums = try ModelSums(planner, specs, measured: Set(measured.map { ExactText($0.name) }), statistics: found)
            (tensors, remarks) = try planner.plan(specs)
        }
        let work = zip(tensors, merged.outputs).map { $0.work(outputs: $1) }
        let fit = OutputFit(inputs: inputs, layerOrigins: list.layerOrigins).remarks(tensors, hasOwnRows: vocabulary != nil)
        return try Plan(
            recipeText: recipe.text, recipeName: recipe.file, method: method.name, inputs: inputs.planned, layout: layout,
            stages: [ShardCutter(targetBytes: request.shardBytes).cut(work)],
            sidecars: sidecars.files, leftOut: sidecars.leftOut,
            remarks: warnings.map(\.description) + inputs.remarks + (vocabulary?.remarks ?? []) + list.remarks + remarks + fit
                + sidecars.remarks + MergekitDifferences.remarks(recipe: recipe, tensors: tensors))
    }

    /// A plan that only measures what the method needs to know about the whole model.
    private static func analysisStage(
        of recipe: Recipe, _ method: any MergeMethod.Type, _ inputs: InputSet, _ measured: [PlannedTensor], request: PlanRequest
    ) throws -> Plan {
        return try Plan(
            recipeText: recipe.text, recipeName: recipe.file, method: method.name, inputs: inputs.planned,
            layout: CheckpointLayout(groups: [], maxPartBytes: request.maxPartBytes),
            stages: [ShardCutter(targetBytes: request.shardBytes).cut(measured.map(\.measurement))], sidecars: [],
            remarks: ["\(method.name): coefficients depend on the whole models, which a first stage measures"],
            hasMoreStages: true)
    }

    private static func floatingType(of tensors: [PlannedTensor]) -> DType? {
        let types = Set(tensors.map(\.codec.dtype).filter(\.isArithmetic))
        return types.count == 1 ? types.first : nil
    }

    private static func mergeMethod(of recipe: Recipe) throws -> any MergeMethod.Type {
        let name = recipe.method.value
        if let method = MergeMethods.all.first(where: { $0.name == name }) { return method }
        let advice = Suggestion.advice(for: name, in: MergeMethods.all.map { $0.name }, otherwise: "write one of")
        throw Problems([
            TesseraError(.badData, "unknown merge method '\(name)'", file: recipe.file, line: recipe.method.line, advice: advice)
        ])
    }
}
