import Core
package import Work

/// What to plan, and where to look for it.
package struct PlanRequest: Sendable {
    /// The recipe's text.
    package var recipe: String
    /// What messages call the recipe.
    package var recipeName: String
    /// Relative model paths are looked up here first.
    package var workingDirectory: String
    /// Where inputs may lie, and the files that they are read from.
    package var roots: Roots
    package var maxPartBytes: Int
    package var shardBytes: Int
    /// Whether an unknown key is a problem rather than a remark.
    package var strict: Bool
    /// What random methods draw from; has no part in the plan of any other.
    package var seed: UInt64
    /// `Plan.inputs` of the job's first stage, which later stages have to find again; `nil` for the first stage itself.
    package var pinnedInputs: [PlannedInput]?

    var files: any InputFiles { roots.files }

    /// Decimal, as the hub and mergekit count.
    package static let defaultMaxPartBytes = 5_000_000_000

    package init(
        recipe: String, recipeName: String, workingDirectory: String, roots: Roots = .wholeMachine, maxPartBytes: Int? = nil,
        shardBytes: Int? = nil, strict: Bool = false, seed: UInt64 = 0
    ) {
        self.recipe = recipe
        self.recipeName = recipeName
        self.workingDirectory = workingDirectory
        self.roots = roots
        self.maxPartBytes = maxPartBytes ?? Self.defaultMaxPartBytes
        self.shardBytes = shardBytes ?? ShardCutter.defaultTargetBytes
        self.strict = strict
        self.seed = seed
    }
}

extension PlanRequest {
    /// - Throws: `badData` naming a file that is another than it was when the first stage was planned.
    func check(_ inputs: [PlannedInput]) throws(TesseraError) {
        guard let pinnedInputs, pinnedInputs != inputs else { return }
        let pinned = Set(pinnedInputs.flatMap(\.files)), found = inputs.flatMap(\.files)
        let changed = found.first { !pinned.contains($0) } ?? pinnedInputs.lazy.flatMap(\.files).first { !found.contains($0) }
        throw TesseraError(
            .badData, "the file was changed or replaced after the job was planned", file: changed?.path ?? recipeName,
            advice: "make sure that nobody writes the inputs during a job, and submit it again")
    }
}
