package import Checkpoints
package import Core
import FoundationEssentials
package import Operators
import TensorKernels
package import Work

/// A model of the recipe as the plan found it.
package struct PlannedInput: Sendable, Hashable {
    /// The reference as the recipe has it.
    package let reference: String
    package let parts: [ManifestInput.Part]
    /// `ReadableFile.version` of each part, on the host that planned.
    package let versions: [String]
    /// The path of each part relative to a root: how this job finds it, not part of the plan's identity.
    package let paths: [String]
    /// Bytes of all parts.
    package var byteCount: Int { parts.reduce(0) { $0 + $1.size } }
}

/// One shard of a plan. Its sources count files over all parts of all inputs, in order.
package struct PlannedShard: Sendable, Hashable {
    package let label: String
    package let tensors: [TensorWork]

    /// Bytes of the output.
    package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }
    /// Bytes that progress counts: of the output, or of the sources where nothing but numbers comes out.
    package var progressByteCount: Int { tensors.reduce(0) { $0 + $1.progressByteCount } }
    /// The output tensors, as blocks and digests count them.
    package var outputs: [OutputTensor] { tensors.flatMap(\.outputs) }
    /// Bytes of all sources, each counted once.
    package var sourceByteCount: Int { tensors.reduce(0) { $0 + $1.sourceByteCount } }
}

/// A part of an earlier output that becomes one of this output as it is.
package struct ReusedPart: Sendable {
    /// Where it lies.
    package let path: String
    package let part: ManifestPart
}

/// A small file whose contents depend on what the workers found.
package struct DerivedFile: Sendable {
    package let name: String
    package let make: @Sendable ([String: TensorStatistics]) throws -> [UInt8]
}

/// What a recipe means for given inputs, made from headers alone: the exact output and the work that makes it.
///
/// A job whose output depends on the values of its inputs begins with a plan that only looks at them: it has no parts, and `next` makes
/// the plan that follows of what was found.
package struct Plan: Sendable {
    package let recipeText: String
    /// What messages call the recipe.
    package let recipeName: String
    package let method: String
    package let inputs: [PlannedInput]
    package let layout: CheckpointLayout
    package let stages: [[PlannedShard]]
    /// The files that go beside the weights, such as config.json and the tokenizer's.
    package let sidecars: [SidecarFile]
    /// What the user should know before the work begins.
    package let remarks: [String]
    /// Bytes that the sources are read in all passes together.
    package let bytesRead: Int
    /// What each shard's tensors need while they are worked on, one after the other, by stage.
    package let memory: [[MemoryNeed]]
    /// Parts of another output that become parts of this one.
    package let reused: [ReusedPart]
    /// The file that says what the parts of a store mean.
    package let index: DerivedFile?
    /// Makes the plan that follows, of what was found in each tensor (by the models' name for it); `nil` in a job's last plan.
    package let next: (@Sendable ([String: TensorStatistics]) throws -> Plan)?

    /// SHA-256 over everything that decides an output byte. Where inputs lie on this machine is not part of it.
    package let digest: Digest

    /// What is enough for any of its tensors.
    package var largestNeed: MemoryNeed { memory.joined().reduce(MemoryNeed()) { $0.union($1) } }

    package var shardCount: Int { stages.reduce(0) { $0 + $1.count } }
    package var bytesWritten: Int { layout.parts.reduce(0) { $0 + $1.fileSize } }
    package var tensorCount: Int { layout.parts.reduce(0) { $0 + $1.tensors.count } }

    init(
        recipeText: String, recipeName: String, method: String, inputs: [PlannedInput], layout: CheckpointLayout,
        stages: [[PlannedShard]], sidecars: [SidecarFile], remarks: [String],
        reused: [ReusedPart] = [], index: DerivedFile? = nil,
        next: (@Sendable ([String: TensorStatistics]) throws -> Plan)? = nil
    ) throws(TesseraError) {
        self.recipeText = recipeText
        self.recipeName = recipeName
        self.reused = reused
        self.index = index
        self.next = next
        self.method = method
        self.inputs = inputs
        self.layout = layout
        self.stages = stages
        self.sidecars = sidecars
        self.remarks = remarks
        var bytesRead = 0, memory = stages.map { $0.map { _ in MemoryNeed() } }
        for (stage, shards) in stages.enumerated() {
            for (shard, planned) in shards.enumerated() {
                for tensor in planned.tensors {
                    let cost = try tensor.cost()
                    bytesRead += cost.passes * tensor.sourceByteCount
                    memory[stage][shard] = memory[stage][shard].union(cost.memory)
                }
            }
        }
        self.bytesRead = bytesRead
        self.memory = memory
        digest = try Self.digest(of: inputs, layout: layout, stages: stages)
    }

    /// Every input file.
    package var files: Set<InputFile> { Set(allFiles) }

    /// The parts of all inputs, as the shards' sources count them.
    private var allFiles: [InputFile] {
        inputs.flatMap { input in
            input.parts.indices.map { index in
                InputFile(
                    path: input.paths[index], size: input.parts[index].size, headerDigest: input.parts[index].headerDigest,
                    version: input.versions[index])
            }
        }
    }

    /// One of its shards as it is sent: with the files it reads, and no others.
    package func work(of planned: PlannedShard) -> ShardWork {
        // A store's tasks bring their base along: it is one file, however many inputs it is a part of.
        let all = allFiles
        var used: [InputFile: Int] = [:]
        var files: [InputFile] = []
        let tensors = planned.tensors.map { tensor in
            var tensor = tensor
            for index in tensor.sources.indices {
                tensor.sources[index].renumberFiles { file in
                    if let position = used[all[file]] { return position }
                    used[all[file]] = files.count
                    files.append(all[file])
                    return files.count - 1
                }
            }
            return tensor
        }
        return ShardWork(label: planned.label, files: files, tensors: tensors)
    }

    private static func digest(
        of inputs: [PlannedInput], layout: CheckpointLayout, stages: [[PlannedShard]]
    ) throws(TesseraError) -> Digest {
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            let hash = try SHA256()
            hash.update(Array(try encoder.encode(["numerics": numericsVersion])))
            for input in inputs {
                hash.update(Array(try encoder.encode(ManifestInput(model: input.reference, parts: input.parts))))
            }
            for part in layout.parts { hash.update(part.headerDigest) }
            for tensor in stages.joined().flatMap(\.tensors) { hash.update(Array(try encoder.encode(tensor))) }
            return try hash.finalize()
        } catch let error as TesseraError {
            throw error
        } catch {
            throw TesseraError(.internal, "the plan cannot be encoded: \(error)")
        }
    }
}
