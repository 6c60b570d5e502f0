import Checkpoints
package import Core
import Operators
import Recipes
import Tokenizers
package import Work

/// Makes a plan from a recipe and the headers of its inputs. Of tensor data it reads no more than a sample
/// of each file (`ContentSample`), and it reports every problem at once.
package enum Planner {
    /// The plan of the stage that follows those whose statistics are given: a function of the request, the statistics and the
    /// files that the request names, which have to be the same in each stage (`PlanRequest.pinnedFiles`).
    ///
    /// - Parameter statistics: of each analysis stage so far, by the models' name for a tensor.
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs; `badData` for inputs that have changed
    ///   since the first stage; `internal` for statistics that are not those of the recipe's stages.
    package static func plan(_ request: PlanRequest, after statistics: [[ExactText: TensorStatistics]] = []) throws -> Plan {
        let files = PinnedFiles(request)
        let outcome = Result { () throws -> Plan in
            do {
                return try Effort.limited(by: request.checkTime) {
                    try plan(request, reading: files, after: statistics)
                }
            } catch let problems as Problems {
                throw Problems(request.located(problems.byLine(of: request.recipeName)))
            } catch let error as TesseraError {
                throw request.located([error])[0]
            }
        }
        // A file that was changed may be why the stage cannot be planned: that is said first.
        let isComplete = if case .success = outcome { true } else { false }
        let pinned = files.pinned()
        try request.check(pinned, isComplete: isComplete)
        var made = try outcome.get()
        // What is read only if it can be was not read after the time was over.
        try request.checkTime()
        made.pinnedFiles = pinned
        return made
    }

    /// Everything that is wrong with the recipe and its inputs, for requests that fail anyway.
    package static func problems(of request: PlanRequest) -> [TesseraError] {
        do {
            _ = try plan(request)
            return []
        } catch let problems as Problems {
            return problems.all
        } catch {
            return [TesseraError(wrapping: error)]
        }
    }

    private static func plan(
        _ request: PlanRequest, reading files: PinnedFiles, after statistics: [[ExactText: TensorStatistics]]
    ) throws -> Plan {
        var request = request
        request.roots = request.roots.reading(files)
        let reading = try JobRecipe.read(text: request.recipe, file: request.recipeName)
        guard let recipe = reading.recipe else { throw RecipeCheck(request: request).problems(reading) }
        return switch recipe {
        case .merge(let recipe): try withWarnings(of: [recipe]) { try plan([recipe], request, after: statistics) }
        case .sweep(let sweep):
            try withWarnings(of: sweep.points.map(\.recipe)) {
                try plan(sweep.points.map(\.recipe), of: sweep, request, after: statistics)
            }
        case .store(let recipe):
            try StorePlanner.plan(
                recipe, request: request, after: statistics, problems: request.refused(recipe.warnings))
        }
    }

    /// Says what is odd about a recipe together with what is wrong with it, so that both can be mended at once.
    private static func withWarnings(of recipes: [Recipe], _ body: () throws -> Plan) throws -> Plan {
        do {
            return try body()
        } catch let problems as Problems {
            // A problem says by itself what is odd about the parameter of its line.
            let lines = Set(problems.all.compactMap(\.line)), method = RecipeCheck.method(of: recipes[0])
            let warnings = recipes.flatMap { recipe in
                let names = method.map { ParameterNames(recipe: recipe, method: $0) }
                return recipe.warnings + (names?.warnings() ?? []).filter { $0.line.map { !lines.contains($0) } ?? true }
            }
            throw Problems(unique(problems.all + warnings))
        }
    }

    /// - Parameter recipes: one, or those of a sweep, which differ in parameters alone.
    private static func plan(
        _ recipes: [Recipe], of sweep: Sweep? = nil, _ request: PlanRequest, after statistics: [[ExactText: TensorStatistics]]
    ) throws -> Plan {
        let recipe = recipes[0]
        guard let method = RecipeCheck.method(of: recipe) else {
            throw Problems([RecipeCheck.unknownMethod(recipe)] + InputSet.problems(recipe, request: request))
        }
        let parameters = recipes.map { ParameterNames(recipe: $0, method: method) }
        var warnings = unique(zip(recipes, parameters).flatMap { $0.warnings + $1.warnings() })
        let wrong = MethodContract(recipe: recipe, method: method).problems() + unique(parameters.flatMap { $0.problems() })
        let problems = RecipeCheck.unsaid(request.refused(warnings), beside: wrong) + wrong
        let inputs = try InputSet.open(recipe, request: request, problems: problems)
        let unfit =
            ModelDifferences.strangers(recipe, inputs: inputs) + Quantization.problems(recipe, method: method, inputs: inputs)
        guard unfit.isEmpty else { throw Problems(unfit) }
        let adapter = AdapterOutput(recipe: recipe, method: method, inputs: inputs)
        if let problems = adapter?.problems(), !problems.isEmpty { throw Problems(problems) }
        let given = try GivenFiles.open(recipe, method: method, inputs: inputs, request: request)
        var lists = recipes.map { OutputTensorList(recipe: $0, inputs: inputs) }
        let first = try lists[0].specs()
        try sweep?.check(tensors: first.count)
        let specs = try [first] + lists.indices.dropFirst().map { try lists[$0].specs() }
        warnings += try unique(zip(parameters, specs).flatMap { try $0.uselessFilters($1) })
        warnings += ModelDifferences.warnings(recipe, inputs: inputs)
        let refused = request.refused(warnings)
        guard refused.isEmpty else { throw Problems(refused) }
        let vocabulary = try Vocabularies(recipe: recipe, inputs: inputs, files: request.files).plan()
        let planners = recipes.map {
            TensorPlanner(
                recipe: $0, method: method, inputs: inputs, given: given, vocabulary: vocabulary, request: request)
        }
        let planned = try zip(planners, specs).map { planner, specs in
            guard let adapter else { return try planner.plan(specs) }
            let found = try planner.plan(specs.filter { adapter.has($0) })
            return (try adapter.factored(found.tensors), found.remarks)
        }

        let one = planned[0].tensors
        let merged = try MergedOutputs(
            one.map { ($0.outputName, $0.outputs) }, onlyPart: adapter.map { _ in Adapter.weightsStem },
            maxPartBytes: adapter == nil ? request.maxPartBytes : .max)
        let files = Sidecars(
            recipe: recipe, inputs: inputs, roots: request.roots, layout: merged.layout, vocabulary: vocabulary,
            dtype: floatingType(of: one), layerOrigins: lists[0].layerOrigins,
            writesMergekitConfig: request.writesMergekitConfig)
        let sidecars =
            try adapter.map { (files: [try $0.config(one, in: request.files)], leftOut: [], remarks: [$0.remark(one)]) }
            ?? files.make()
        // Every stage looks at every file, so that none can change in between.
        let points: [[PlannedTensor]]
        switch try ModelStages.next(planned.map(\.tensors), method, after: statistics) {
        case .merge(let measured): points = measured
        case .measure(let work): return try analysisStage(of: planners[0], work, request: request)
        }
        let work = merged.outputs.indices.flatMap { tensor in
            SweptTensor(points: points.map { $0[tensor] }).work(
                outputs: points.indices.map { copy in merged.outputs[tensor].map { $0.inCopy(copy, of: merged.layout) } })
        }
        let fit =
            adapter == nil
            ? OutputFit(inputs: inputs, layerOrigins: lists[0].layerOrigins).remarks(points[0], hasOwnRows: vocabulary != nil)
            : []
        let remarks =
            inputs.remarks + (vocabulary?.remarks ?? []) + lists[0].remarks + planned[0].remarks + fit
            + ThinnedTasks.remarks(method, inputs) + sidecars.remarks
            + MergekitDifferences.remarks(recipe: recipe, tensors: points[0])
        let checkpoints = sweep?.points.map { point in
            SweptCheckpoint(
                folder: point.name, recipeText: point.recipe.text,
                sidecars: request.chosen(sidecars.files + files.about(point.recipe)))
        }
        return try Plan(
            recipeText: sweep?.text ?? recipe.text, recipeName: recipe.file, method: method.name, inputs: inputs.planned,
            given: given.planned,
            layout: sweep.map { CheckpointLayout(copiesOf: merged.layout, in: $0.points.map(\.name)) } ?? merged.layout,
            stages: [ShardCutter(targetBytes: request.shardBytes).cut(work)],
            sidecars: request.chosen(sweep?.files ?? sidecars.files + files.about(recipe)), leftOut: sidecars.leftOut,
            remarks: remarks + (sweep?.remarks(of: work, tensors: merged.outputs.count) ?? []),
            warnings: request.located(warnings), swept: checkpoints ?? [], base: base(of: recipe, method))
    }

    /// The points of a sweep have most problems in common.
    private static func unique(_ problems: [TesseraError]) -> [TesseraError] {
        var seen: Set<TesseraError> = []
        return problems.filter { seen.insert($0).inserted }
    }

    /// A plan that only measures what the method needs to know about the whole model.
    private static func analysisStage(
        of planner: TensorPlanner, _ work: [TensorWork], request: PlanRequest
    ) throws -> Plan {
        let recipe = planner.recipe, method = planner.method
        return try Plan(
            recipeText: recipe.text, recipeName: recipe.file, method: method.name, inputs: planner.inputs.planned,
            given: planner.given.planned,
            layout: CheckpointLayout(groups: [], maxPartBytes: request.maxPartBytes),
            stages: [ShardCutter(targetBytes: request.shardBytes).cut(work)], sidecars: [],
            remarks: ["\(method.name): depends on the models as wholes, which are measured first"],
            hasMoreStages: true, base: base(of: recipe, method))
    }

    private static func base(of recipe: Recipe, _ method: any MergeMethod.Type) -> String? {
        method.inputs.givesBaseARole ? recipe.baseModel.map { "\($0.value)" } : nil
    }

    private static func floatingType(of tensors: [PlannedTensor]) -> DType? {
        let types = Set(tensors.map(\.codec.dtype).filter(\.isArithmetic))
        return types.count == 1 ? types.first : nil
    }
}
