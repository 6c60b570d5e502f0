import Checkpoints
package import Core
package import Work

/// What to plan, and where to look for it.
package struct PlanRequest: Sendable {
    /// The recipe's text.
    package var recipe: String
    /// What messages call the recipe.
    package var recipeName: String
    /// Where the lines of a recipe come from that is not the user's file as it is.
    package var recipeOrigins: LineOrigins?
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
    /// `Plan.pinnedFiles` of the job's first stage, which later stages have to find again; `nil` for the first stage itself.
    package var pinnedFiles: [String: PinnedFile]?
    package var pinning = InputPinning()
    /// Whether the recipe goes into the output as `mergekit_config.yml` too.
    package var writesMergekitConfig = false
    /// Whether the output gets a model card.
    package var writesModelCard = true

    /// Whether planning has taken too long, or nobody wants the plan any more. Asked with each file and each tensor.
    package var isOverdue: @Sendable () -> Bool = { false }

    var files: any InputFiles { roots.files }

    /// Which warnings are errors: all of a strict request, else those about what the command line sets in vain.
    func refused(_ warnings: [TesseraError]) -> [TesseraError] {
        strict ? warnings : warnings.filter { recipeOrigins?.isSetting($0, in: recipeName) == true }
    }

    /// The errors, placed where the user wrote what is wrong.
    func located(_ errors: [TesseraError]) -> [TesseraError] {
        errors.map { recipeOrigins?.located($0, in: recipeName) ?? $0 }
    }

    /// - Throws: `badData` once planning has taken too long.
    func checkTime() throws(TesseraError) {
        guard !isOverdue() else {
            throw TesseraError(
                .badData, "planning takes too long and was given up", file: recipeName,
                advice: "the recipe or its inputs are far larger than any real ones; merge them in parts")
        }
    }

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
    /// The files beside the weights that the request wants.
    func chosen(_ files: [SidecarFile]) -> [SidecarFile] {
        writesModelCard ? files : files.filter { $0.name != "README.md" }
    }

    /// - Parameters:
    ///   - opened: the files that this stage has opened, by path.
    ///   - isComplete: whether the stage has opened all that it needs.
    /// - Throws: `badData` naming a file that is another than it was when the first stage was planned.
    func check(_ opened: [String: PinnedFile], isComplete: Bool) throws(TesseraError) {
        guard let pinnedFiles else { return }
        var changed = opened.filter { pinnedFiles[$0.key]?.isSame(as: $0.value) != true }.map(\.key)
        if isComplete { changed += pinnedFiles.keys.filter { opened[$0] == nil } }
        if let first = changed.sortedByBytes().first { throw Self.changed(first) }
    }

    /// A file did not stay what it was.
    static func changed(_ path: String) -> TesseraError {
        TesseraError(
            .badData, "the file was changed or replaced after the job was planned", file: path,
            advice: "make sure that nobody writes the inputs during a job, and submit it again")
    }
}
