package import Core

/// A recipe that makes a task-vector store: `quantize` or `sparsify` (docs/task-vectors.md).
package struct StoreRecipe: Sendable {
    /// A fine-tune and the name of its task in the store.
    package struct Task: Sendable {
        package let model: Located<ModelReference>
        package let name: String
    }

    /// The elements of a tensor that share a scale.
    package enum Group: Sendable, Hashable {
        case tensor, row
        case group(Int)
    }

    package struct Grid: Sendable, Hashable {
        package let bits: Int
        package let group: Group
    }

    package struct Budget: Sendable, Hashable {
        package enum Amount: Sendable, Hashable {
            /// Bits per parameter of each fine-tune.
            case bits(Double)
            /// Share of the fine-tunes' bytes, 0...1.
            case share(Double)
        }

        /// The weight of a squared error in a tensor.
        package enum Sensitivity: Sendable, Hashable {
            /// Divided by the norm of the tensor's task vector to the power of 3/2: between `relative` and `absolute`, and better
            /// than either.
            case balanced
            /// Divided by the squared norm of the tensor's task vector.
            case relative
            case absolute
            /// `absolute`, multiplied by the weights in a file (`SensitivityWeights`).
            case file(String)
        }

        package let amount: Amount
        package let sensitivity: Sensitivity
        /// The minimum bits per parameter of a tensor; `nil` for the default.
        package let floor: Double?
        /// Whether vectors may be thinned and the budget covers everything that is stored; `nil` for the default.
        package let thins: Bool?
        /// Whether thinned vectors of one tensor keep the same elements.
        package let hasCommonMasks: Bool
        package let line: Int
    }

    package enum Quantization: Sendable {
        /// TVQ: every task vector on its own grid.
        case plain(Grid)
        /// RTVQ: a shared vector and the offset of each task.
        case residual(base: Grid, offset: Grid, correctsErrors: Bool)
        /// Signs, with scales of the tensor (BitDelta), or of its rows or columns.
        case signs(isPerAxis: Bool)
        /// TVQ or RTVQ with grids chosen to fit a budget.
        case budget(Budget, isResidual: Bool)
    }

    /// How the values of a sparse vector are stored: as `dtype` or on a grid; if both are `nil`, in the models' type.
    package struct Values: Sendable {
        package let dtype: DType?
        package let grid: Grid?
    }

    package enum Sparsity: Sendable {
        /// A share of the entries of each tensor, or of the whole model.
        case magnitude(density: Double, isModelWide: Bool)
        case random(density: Double)
        case blocks(n: Int, m: Int, prorates: Bool, isDisjoint: Bool)
        /// The mask lambda of each task.
        case tall([Double])
        case emr(sumsOfMeans: Bool)
    }

    package enum Kind: Sendable {
        case quantize(Quantization)
        case sparsify(Sparsity, Values)
    }

    /// Selects the tensors to encode. Other tensors are stored unencoded.
    package struct Filter: Sendable {
        /// Parts of tensor names; empty to include all.
        package let include: [Located<String>]
        package let exclude: [Located<String>]
        /// The minimum number of dimensions.
        package let leastRank: Int

        package func takes(_ name: String, rank: Int) -> Bool {
            rank >= leastRank && (include.isEmpty || include.contains { name.holds($0.value) })
                && !exclude.contains { name.holds($0.value) }
        }
    }

    /// The recipe as the user wrote it.
    package let text: String
    /// The name used in messages.
    package let file: String
    package let kind: Kind
    /// The line of `quantize` or `sparsify`.
    package let line: Int
    package let baseModel: Located<ModelReference>
    package let tasks: [Task]
    package let filter: Filter
    /// The type of unencoded tensors.
    package let rest: DType
    /// An earlier store whose tasks are included.
    package let extends: Located<String>?
    package let warnings: [TesseraError]
}

/// A recipe of any kind.
package enum JobRecipe: Sendable {
    case merge(Recipe)
    case sweep(Sweep)
    case store(StoreRecipe)

    /// - Parameter strict: whether to treat warnings as problems.
    /// - Throws: `Problems` with all problems and their lines, and with what is odd besides.
    package static func parse(text: String, file: String, strict: Bool = false) throws(Problems) -> JobRecipe {
        let reading = try read(text: text, file: file)
        guard let recipe = reading.recipe, !strict || reading.warnings.isEmpty else {
            throw Problems(reading.problems + reading.warnings)
        }
        return recipe
    }

    /// - Throws: `Problems` for a text of which nothing can be read, such as one that is not YAML.
    package static func read(text: String, file: String) throws(Problems) -> RecipeReading {
        var reader = RecipeReader(text: text, file: file)
        return try reader.readJob()
    }
}

/// As much of a recipe as could be read, and what is wrong with the rest.
package struct RecipeReading: Sendable {
    /// `nil` where anything is wrong.
    package let recipe: JobRecipe?
    /// What is wrong; empty for a recipe.
    package let problems: [TesseraError]
    /// What is odd, such as unknown keys.
    package let warnings: [TesseraError]
    /// Of a merge, or of the first one of a sweep. Its method is empty where the recipe names none.
    package let draft: Recipe?
    /// Whether the draft has every model that the recipe names, so that they can be counted.
    package let hasAllModels: Bool
    /// Of a store.
    package let fineTunes: [Located<ModelReference>]
    package let base: Located<ModelReference>?
}
