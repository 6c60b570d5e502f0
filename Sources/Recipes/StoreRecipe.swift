package import Core

/// A recipe that makes a task-vector store: `quantize` or `sparsify` (docs/task-vectors.md).
package struct StoreRecipe: Sendable {
    /// A fine-tune and what its task is called in the store.
    package struct Task: Sendable {
        package let model: Located<ModelReference>
        package let name: String
    }

    /// The elements of a tensor that share a grid's step.
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
            /// For each parameter of each fine-tune.
            case bits(Double)
            /// Of the bytes of the fine-tunes, 0...1.
            case share(Double)
        }

        /// How much a squared error in a tensor counts.
        package enum Sensitivity: Sendable, Hashable {
            /// Divided by the norm of the tensor's own task vector to the power of 3/2: between the two others, and better than
            /// either.
            case balanced
            /// Divided by its squared norm.
            case relative
            case absolute
            /// `absolute`, times the weights that a file gives for tensors.
            case file(String)
        }

        package let amount: Amount
        package let sensitivity: Sensitivity
        /// The least bits for each parameter of a tensor; `nil` for the default.
        package let floor: Double?
        package let line: Int
    }

    package enum Quantization: Sendable {
        /// TVQ: each task vector on a grid of its own.
        case plain(Grid)
        /// RTVQ: a shared vector, and each task's offset from it.
        case residual(base: Grid, offset: Grid, correctsErrors: Bool)
        /// Either, with grids that fit a budget.
        case budget(Budget, isResidual: Bool)
    }

    /// How the values of a sparse vector are stored; without a type and a grid in the type of the models.
    package struct Values: Sendable {
        package let dtype: DType?
        package let grid: Grid?
    }

    package enum Sparsity: Sendable {
        /// A share of the entries of each tensor, or of the whole model.
        case magnitude(density: Double, isModelWide: Bool)
        case random(density: Double)
        case blocks(n: Int, m: Int, prorates: Bool, isDisjoint: Bool)
        /// The masks' lambda of each task.
        case tall([Double])
        case emr(sumsOfMeans: Bool)
    }

    package enum Kind: Sendable {
        case quantize(Quantization)
        case sparsify(Sparsity, Values)
    }

    /// Which tensors are encoded; the others are stored as they are.
    package struct Filter: Sendable {
        /// Parts of names; empty for every name.
        package let include: [Located<String>]
        package let exclude: [Located<String>]
        /// Dimensions that a tensor has at least.
        package let leastRank: Int

        package func takes(_ name: String, rank: Int) -> Bool {
            rank >= leastRank && (include.isEmpty || include.contains { name.contains($0.value) })
                && !exclude.contains { name.contains($0.value) }
        }
    }

    /// As the user wrote it.
    package let text: String
    /// What messages call it.
    package let file: String
    package let kind: Kind
    /// Of the kind's key.
    package let line: Int
    package let baseModel: Located<ModelReference>
    package let tasks: [Task]
    package let filter: Filter
    /// The type of tensors that are not encoded.
    package let rest: DType
    /// An earlier store whose tasks come along.
    package let extends: Located<String>?
    package let warnings: [TesseraError]
}

/// Whatever a recipe asks for.
package enum JobRecipe: Sendable {
    case merge(Recipe)
    case store(StoreRecipe)

    /// - Parameter strict: whether warnings are problems.
    /// - Throws: `Problems` with everything that is wrong, each with its line.
    package static func parse(text: String, file: String, strict: Bool = false) throws(Problems) -> JobRecipe {
        var reader = RecipeReader(text: text, file: file)
        return try reader.readJob(strict: strict)
    }
}
