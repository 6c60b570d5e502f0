import Checkpoints
package import Core
import Recipes
package import Work

/// Models whose tensors are read side by side, without a recipe.
package struct OpenedModels: Sendable {
    /// A tensor as a model has it.
    package struct Tensor: Sendable {
        package let source: SourceReference
        package let shape: [Int]
        package let dtype: DType
        /// Whether its elements are float8 codes that are values only together with scales.
        package let isScaled: Bool
    }

    /// The models as they were named, in order.
    package let references: [String]
    /// What the sources of all tensors count.
    package let files: [InputFile]
    /// The names of the tensors of all models, in natural order.
    package let tensorNames: [String]
    /// What the user should know about how the models are read.
    package let remarks: [String]
    /// Of each model.
    private let tensors: [[ExactText: Tensor]]

    /// - Parameters:
    ///   - references: as in a recipe: checkpoints, repositories in the hub's cache, `MODEL+ADAPTER`, and `STORE#TASK`.
    ///   - base: what the tasks of stores are added to; `nil` for the base that the store names.
    /// - Throws: `Problems` with every model that cannot be opened.
    package static func open(_ references: [String], base: String? = nil, workingDirectory: String) throws -> OpenedModels {
        let request = PlanRequest(recipe: "", recipeName: "", workingDirectory: workingDirectory)
        let models = try references.map { try parse($0, request) }, base = try base.map { try parse($0, request) }
        let inputs = try InputSet.open(models, base: base, recipeFile: nil, request: request)
        return OpenedModels(references, inputs, positions: models.map { inputs.index(of: $0.value) ?? 0 })
    }

    private init(_ references: [String], _ inputs: InputSet, positions: [Int]) {
        self.references = references
        var files: [InputFile] = [], known: [InputFile: Int] = [:]
        // Tasks of one store bring the same base along.
        let numbers = inputs.inputs.flatMap(\.files).map { file in
            let file = InputFile(
                path: file.path, size: file.part.size, headerDigest: file.part.headerDigest, version: file.version)
            if let number = known[file] { return number }
            known[file] = files.count
            files.append(file)
            return files.count - 1
        }
        self.files = files
        let models = positions.map { inputs.inputs[$0] }
        tensors = models.map { model in
            model.tensorNames.reduce(into: [:]) { $0[ExactText($1)] = Tensor($1, of: model) { numbers[$0] } }
        }
        tensorNames = models.reduce(into: []) { $0 = $0.mergedByBytes($1.tensorNames) }.sorted { $0.precedesNaturally($1) }
        remarks = inputs.remarks
    }

    /// What lies at the path goes before what the text means in a recipe.
    private static func parse(_ text: String, _ request: PlanRequest) throws(TesseraError) -> Located<ModelReference> {
        if (try? request.roots.relativePath(of: text, workingDirectory: request.workingDirectory)) != nil {
            return Located(ModelReference(model: ModelReference.Source(path: text)), line: 0)
        }
        guard let reference = ModelReference(parsing: text) else {
            throw TesseraError(
                .usage, "'\(text)' names no model", advice: "write a path, MODEL+ADAPTER, or STORE#TASK for a task of a store")
        }
        return Located(reference, line: 0)
    }

    /// - Returns: `nil` when the model has none of that name.
    package func tensor(named name: String, of model: Int) -> Tensor? { tensors[model][ExactText(name)] }
}

extension OpenedModels.Tensor {
    fileprivate init?(_ name: String, of model: InputSet.Input, fileNumber: (Int) -> Int) {
        guard let found = model.tensor(named: name) else { return nil }
        var source = found.source
        source.renumberFiles(fileNumber)
        self.init(source: source, shape: found.shape, dtype: found.dtype, isScaled: model.scaledCodes(name) != nil)
    }
}

/// Where a tensor stands in a model, as its name says, for tables and plots.
package struct TensorPlace: Sendable, Hashable {
    /// What stands before the number of a layer, such as `model.layers`; `nil` outside the layers.
    package let stack: String?
    package let layer: Int?
    /// What the tensors of all layers have in common, such as `self_attn.q_proj`: the rest of the name, without a last
    /// `weight`, and with `*` in the place of an expert's number.
    package let module: String

    package init(_ name: String) {
        let found = TensorName(name).layer
        stack = found?.prefix.string
        layer = found?.index
        var words = name.split(separator: ".", omittingEmptySubsequences: false)
        if let found { words.removeFirst(found.prefix.string.split(separator: ".", omittingEmptySubsequences: false).count + 1) }
        if words.count > 1, words.last == "weight" { words.removeLast() }
        module = words.map { $0.allSatisfy { ("0"..."9").contains($0) } && !$0.isEmpty ? "*" : String($0) }.joined(separator: ".")
    }
}
