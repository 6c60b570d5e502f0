package import Checkpoints
package import Core
package import Operators
import TaskVectors
package import Work

/// A model of the recipe as the plan found it.
package struct PlannedInput: Sendable, Hashable, Codable {
    /// The reference as the recipe has it.
    package let reference: String
    package let parts: [ManifestInput.Part]
    /// `FileStatus.identity` of each part, on the host that planned.
    package let versions: [String]
    /// The path of each part relative to a root: how this job finds it, not part of the plan's identity.
    package let paths: [String]
    /// Bytes of all parts.
    package var byteCount: Int { parts.reduce(0) { $0 + $1.size } }

    package var files: [InputFile] {
        parts.indices.map { index in
            InputFile(
                path: paths[index], size: parts[index].size, headerDigest: parts[index].headerDigest, version: versions[index],
                contents: parts[index].sample.map { ContentPin(sample: $0, sha256: parts[index].sha256) })
        }
    }
}

/// One shard of a plan. Its sources count files over all parts of all inputs, in order.
package struct PlannedShard: Sendable, Hashable {
    package let label: String
    package let tensors: [TensorWork]
    /// Bytes of the output.
    package let byteCount: Int
    /// Bytes of all sources, each counted once.
    package let sourceByteCount: Int
    /// Bytes that progress counts: of the output, or of the sources where nothing but numbers comes out.
    package let progressByteCount: Int

    package init(label: String, tensors: [TensorWork]) {
        self.label = label
        self.tensors = tensors
        var byteCount = 0, sourceByteCount = 0, progressByteCount = 0
        for tensor in tensors {
            let own = tensor.sourceByteCount
            byteCount += tensor.byteCount
            sourceByteCount += own
            progressByteCount += tensor.outputs.isEmpty ? own : tensor.byteCount
        }
        self.byteCount = byteCount
        self.sourceByteCount = sourceByteCount
        self.progressByteCount = progressByteCount
    }

    /// The output tensors, as blocks and digests count them.
    package var outputs: [OutputTensor] { tensors.flatMap(\.outputs) }
}

/// What a shard is expected to take.
package struct ShardEstimate: Sendable, Hashable {
    /// What is enough for any of its tensors, which are worked on one after the other.
    package private(set) var memory = MemoryNeed()
    /// The tensor that needs most on one thread, and how many bytes that is.
    package private(set) var largestTensor = ""
    private(set) var largestByteCount = 0
    /// Seconds of one thread, roughly.
    package private(set) var seconds = 0.0

    fileprivate mutating func add(_ cost: OperatorCost, of tensor: TensorWork) {
        memory = memory.union(cost.memory)
        let byteCount = cost.memory.byteCount(threads: 1)
        if byteCount > largestByteCount { (largestTensor, largestByteCount) = (tensor.name, byteCount) }
        seconds += tensor.estimatedSeconds(cost)
    }
}

/// A part of an earlier output that becomes one of this output as it is.
package struct ReusedPart: Sendable {
    /// Where it lies.
    package let path: String
    package let part: ManifestPart
}

/// A small file whose contents follow from the statistics of the plan's tensors.
package enum DerivedFile: Sendable {
    /// The index of a store of task vectors.
    case storeIndex(StoreIndexWriter)
    /// The small vectors of a store's tasks.
    case packedVectors(StoreIndexWriter)

    package var name: String {
        switch self {
        case .storeIndex: StoreIndex.fileName
        case .packedVectors(let writer): writer.packedFile
        }
    }

    /// - Parameter statistics: of every tensor, by the models' name for it.
    /// - Throws: `internal` when some are missing, `badData` when they show that the inputs do not belong together.
    package func contents(_ statistics: [ExactText: TensorStatistics]) throws(TesseraError) -> [UInt8] {
        switch self {
        case .storeIndex(let writer): try writer.index(statistics: statistics).encoded()
        case .packedVectors(let writer): try writer.packedVectors(statistics: statistics)
        }
    }
}

/// What a recipe means for given inputs, made from headers alone: the exact output and the work that makes it.
///
/// A job whose output depends on the values of its inputs begins with a plan that only looks at them, an analysis stage: it has
/// no parts, and `Planner.plan` makes the plan that follows from the statistics of all stages so far.
package struct Plan: Sendable {
    package let recipeText: String
    /// What messages call the recipe.
    package let recipeName: String
    /// The reference of the model that the others are compared with, as the recipe has it; `nil` where no model has that role.
    package let base: String?
    /// About how many bytes the output will have, where an analysis stage knows that.
    package let expectedBytes: Int?
    package let method: String
    /// The models, and behind them the files that the recipe gives the method.
    package let inputs: [PlannedInput]
    /// How many of the inputs are no models.
    package let givenCount: Int
    package let layout: CheckpointLayout
    package let stages: [[PlannedShard]]
    /// The files that go beside the weights, such as config.json and the tokenizer's.
    package let sidecars: [SidecarFile]
    /// What the primary model has beside its weights and the output does not get.
    package let leftOut: [LeftOutFile]
    /// What the user should know before the work begins.
    package let remarks: [String]
    /// What is odd about the recipe and probably a mistake.
    package let warnings: [TesseraError]
    /// Bytes that the sources are read in all passes together.
    package let bytesRead: Int
    /// What each shard is expected to take, by stage.
    package let estimates: [[ShardEstimate]]
    /// Parts of another output that become parts of this one.
    package let reused: [ReusedPart]
    /// The files that are made of statistics when the output is published.
    package let derived: [DerivedFile]
    /// The checkpoints of a sweep, each with equally many of the layout's parts, in order; empty for one checkpoint.
    package let swept: [SweptCheckpoint]
    /// Whether this is an analysis stage, which another plan follows.
    package let hasMoreStages: Bool
    /// Every file that the plan was made of, by its path on the host that planned. Not part of the plan's identity.
    package internal(set) var pinnedFiles: [String: PinnedFile] = [:]

    /// SHA-256 over everything that decides an output byte (`PlanEncoding`). Where inputs lie on this machine is not part of it.
    package let digest: Digest

    /// The parts of all inputs, as the shards' sources count them.
    private let allFiles: [InputFile]
    /// For each of them the first that is the same: a store's tasks bring their base along, which is one file however many inputs
    /// name it.
    private let firstOccurrences: [Int]

    /// What is enough for any of its tensors.
    package var largestNeed: MemoryNeed { estimates.joined().reduce(MemoryNeed()) { $0.union($1.memory) } }

    /// The tensor that needs most memory on one thread.
    package var largestTensor: String? { estimates.joined().max { $0.largestByteCount < $1.largestByteCount }?.largestTensor }

    package var bytesWritten: Int { layout.parts.reduce(0) { $0 + $1.fileSize } }
    package var tensorCount: Int { layout.parts.reduce(0) { $0 + $1.tensors.count } }

    init(
        recipeText: String, recipeName: String, method: String, inputs: [PlannedInput], given: [PlannedInput] = [],
        layout: CheckpointLayout, stages: [[PlannedShard]], sidecars: [SidecarFile], leftOut: [LeftOutFile] = [],
        remarks: [String], warnings: [TesseraError] = [], reused: [ReusedPart] = [], derived: [DerivedFile] = [],
        swept: [SweptCheckpoint] = [], hasMoreStages: Bool = false, base: String? = nil, expectedBytes: Int? = nil
    ) throws(TesseraError) {
        self.base = base
        self.expectedBytes = expectedBytes
        self.recipeText = recipeText
        self.recipeName = recipeName
        self.reused = reused
        self.derived = derived
        self.swept = swept
        self.hasMoreStages = hasMoreStages
        self.method = method
        let inputs = inputs + given
        self.inputs = inputs
        givenCount = given.count
        self.layout = layout
        self.stages = stages
        self.sidecars = sidecars
        self.leftOut = leftOut
        self.remarks = remarks
        self.warnings = warnings
        allFiles = inputs.flatMap(\.files)
        var positions: [InputFile: Int] = [:]
        let firstOccurrences = allFiles.enumerated().map { position, file in
            if let first = positions[file] { return first }
            positions[file] = position
            return position
        }
        self.firstOccurrences = firstOccurrences
        var bytesRead = 0, estimates = stages.map { $0.map { _ in ShardEstimate() } }
        for (stage, shards) in stages.enumerated() {
            for (shard, planned) in shards.enumerated() {
                for tensor in planned.tensors {
                    let cost = try tensor.located { firstOccurrences[$0] }.cost()
                    bytesRead += cost.passes * tensor.sourceByteCount
                    estimates[stage][shard].add(cost, of: tensor)
                }
            }
        }
        self.bytesRead = bytesRead
        self.estimates = estimates
        digest = try PlanEncoding.digest(
            of: inputs, layout: layout, stages: stages, folders: swept.map(\.folder))
    }

    /// Every input file.
    package var files: Set<InputFile> { Set(allFiles) }

    /// One of its shards as it is sent: with the files it reads, and no others.
    package func work(of planned: PlannedShard) -> ShardWork {
        var used: [Int: Int] = [:]
        var files: [InputFile] = []
        func number(_ file: Int) -> Int {
            let file = firstOccurrences[file]
            if let position = used[file] { return position }
            used[file] = files.count
            files.append(allFiles[file])
            return files.count - 1
        }
        let tensors = planned.tensors.map { tensor in
            var tensor = tensor
            for index in tensor.sources.indices { tensor.sources[index].renumberFiles(number) }
            for index in tensor.given.indices { tensor.given[index].renumberFiles(number) }
            return tensor
        }
        return ShardWork(label: planned.label, files: files, tensors: tensors)
    }
}

extension TensorWork {
    /// With other numbers of files: what is costly depends on which sources are the same.
    fileprivate func located(_ number: (Int) -> Int) -> TensorWork {
        guard sources.contains(where: { if case .lowRank = $0 { true } else { false } }) else { return self }
        var located = self
        for index in located.sources.indices { located.sources[index].renumberFiles(number) }
        return located
    }
}
