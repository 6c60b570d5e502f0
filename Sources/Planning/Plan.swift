package import Checkpoints
import FoundationEssentials
import TensorKernels

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
    /// Bytes of all sources, each counted once.
    package var sourceByteCount: Int { tensors.reduce(0) { $0 + $1.sourceByteCount } }
}

/// What a recipe means for given inputs, made from headers alone: the exact output and the work that makes it.
package struct Plan: Sendable {
    package let recipeText: String
    package let method: String
    package let inputs: [PlannedInput]
    package let layout: CheckpointLayout
    package let stages: [[PlannedShard]]
    /// The files that go beside the weights, such as config.json and the tokenizer's.
    package let companions: [CompanionFile]
    /// What the user should know before the work begins.
    package let remarks: [String]
    /// Bytes that the sources are read in all passes together.
    package let bytesRead: Int
    /// Bytes of statistics, grains and block that a worker needs for each of its threads.
    package let bytesPerThread: Int

    /// SHA-256 over everything that decides an output byte. Where inputs lie on this machine is not part of it.
    package let digest: Digest

    package var shardCount: Int { stages.reduce(0) { $0 + $1.count } }
    package var bytesWritten: Int { layout.parts.reduce(0) { $0 + $1.fileSize } }
    package var tensorCount: Int { layout.parts.reduce(0) { $0 + $1.tensors.count } }

    init(
        recipeText: String, method: String, inputs: [PlannedInput], layout: CheckpointLayout, stages: [[PlannedShard]],
        companions: [CompanionFile], remarks: [String], bytesRead: Int, bytesPerThread: Int
    ) throws(TesseraError) {
        self.recipeText = recipeText
        self.method = method
        self.inputs = inputs
        self.layout = layout
        self.stages = stages
        self.companions = companions
        self.remarks = remarks
        self.bytesRead = bytesRead
        self.bytesPerThread = bytesPerThread
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

    /// The shard as it is sent: with the files it reads, and no others.
    package func work(stage: Int, shard: Int) -> ShardWork {
        let planned = stages[stage][shard]
        let all = allFiles
        var used: [Int: Int] = [:]
        var files: [InputFile] = []
        let tensors = planned.tensors.map { tensor in
            var tensor = tensor
            for index in tensor.sources.indices {
                tensor.sources[index].renumberFiles { file in
                    if let position = used[file] { return position }
                    used[file] = files.count
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
