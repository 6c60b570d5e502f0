import Checkpoints
import Recipes

/// The models of a recipe, opened once each, in the order of the recipe; a base that is named only as base comes last.
struct InputSet {
    struct Input {
        let reference: ModelReference
        let checkpoint: Checkpoint
        /// The checkpoint's directory relative to a root.
        let location: String
        /// The number of the checkpoint's first part when the parts of all inputs are counted in order.
        let firstFile: Int
        let layers: LayerStacks
    }

    let inputs: [Input]
    /// The recipe's base.
    let base: Int?
    private let indices: [ModelReference: Int]

    func index(of reference: ModelReference) -> Int? { indices[reference] }

    var planned: [PlannedInput] {
        inputs.map { input in
            PlannedInput(
                reference: input.reference.description, location: input.location,
                parts: input.checkpoint.parts.map {
                    ManifestInput.Part(file: $0.fileName, size: $0.header.fileSize, headerDigest: $0.header.digest)
                },
                versions: input.checkpoint.parts.map(\.header.fileVersion))
        }
    }

    /// The model whose config and tokenizer the output gets: the base, else the first.
    var donor: Input { inputs[base ?? 0] }

    /// - Throws: `Problems` with every model that cannot be opened.
    static func open(_ recipe: Recipe, request: PlanRequest) throws -> InputSet {
        let sources = recipe.modules.flatMap(\.body.sources).map(\.model)
        let sliceBases = recipe.modules.flatMap { module -> [Located<ModelReference>] in
            guard case .slices(let slices) = module.body else { return [] }
            return slices.compactMap(\.baseModel)
        }
        let locator = ModelLocator(roots: request.roots, workingDirectory: request.workingDirectory)
        var inputs: [Input] = []
        var indices: [ModelReference: Int] = [:]
        var problems: [TesseraError] = []
        var files = 0
        var seen: Set<ModelReference> = []
        for named in sources + sliceBases + [recipe.baseModel].compactMap(\.self) where seen.insert(named.value).inserted {
            do throws(TesseraError) {
                guard named.value.adapter == nil else {
                    throw TesseraError(
                        .badData, "'\(named.value)' has an adapter, which this version does not support", file: recipe.file,
                        line: named.line)
                }
                let input = try open(named.value, locator: locator, firstFile: files)
                indices[named.value] = inputs.count
                inputs.append(input)
                files += input.checkpoint.parts.count
            } catch {
                problems.append(error)
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return InputSet(inputs: inputs, base: recipe.baseModel.flatMap { indices[$0.value] }, indices: indices)
    }

    private static func open(_ reference: ModelReference, locator: ModelLocator, firstFile: Int) throws(TesseraError) -> Input {
        let checkpoint = try Checkpoint.open(try locator.locate(reference.model))
        for part in checkpoint.parts {
            // A part may be a link, as in the hub's cache, but not to somewhere outside.
            _ = try locator.roots.relativePath(of: "\(checkpoint.directory)/\(part.fileName)", workingDirectory: nil)
        }
        return Input(
            reference: reference, checkpoint: checkpoint,
            location: try locator.roots.relativePath(of: checkpoint.directory, workingDirectory: nil), firstFile: firstFile,
            layers: LayerStacks(names: checkpoint.tensorNames))
    }
}
