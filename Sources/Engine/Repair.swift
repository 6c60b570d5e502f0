package import Checkpoints
package import Core
import Operators
package import Planning
import Protocol
import TaskVectors
import TensorKernels
import Work
import Worker

/// Mends an output: computes what is damaged again, and puts it in place of the old.
///
/// A damaged file is made anew beside the old one, `NAME.repair`, from the old one's good blocks and from tensors that are
/// computed again; it must have exactly the manifest's digests. When it is durable it takes the old one's name in one step.
/// Whenever a repair is killed, each file is the old or the good one.
package struct Repair: Sendable {
    private let path: String
    private let directory: Directory
    private let manifest: Manifest
    private let request: PlanRequest
    private let executor: ShardExecutor

    /// What a file has after its name while it is made.
    private static let suffix = ".repair"

    /// - Parameters:
    ///   - request: what the output was made of.
    ///   - memory: bytes, for everything.
    /// - Throws: `inputMissing` or `badData` if the directory has no readable manifest.
    package init(
        directory path: String, request: PlanRequest, threads: Int, memory: Int
    ) throws(TesseraError) {
        self.path = path
        self.request = request
        directory = try Directory(path)
        manifest = try Manifest.read(directory: path, in: LocalFiles())
        let memory = WorkerMemory(total: memory, threads: threads, isConnected: false)
        executor = ShardExecutor(
            pool: ComputePool(threads: threads, memory: memory.tensors),
            inputs: LocalInputs(planningHostWith: request.roots))
    }

    /// Mends the files that have findings.
    ///
    /// - Returns: the names of the files that are good now. What cannot be mended, such as a file that does not belong to the
    ///   output, stays.
    /// - Throws: `badData` when recipe, inputs or version are not those that the output was made with; nothing is changed then.
    package func mend(_ findings: [VerifyReport.Finding]) async throws -> [String] {
        try removeLeftovers()
        let damaged = Set(findings.map(\.file))
        guard !damaged.isDisjoint(with: manifest.parts.map(\.file) + manifest.files.map(\.file)) else { return [] }
        let plan = try await replan()
        try check(plan)
        // Whatever is wrong with them shows before anything is replaced.
        let files = try await smallFiles(damaged, of: plan)
        let parts = try await mendParts(damaged, of: plan)
        for (name, bytes) in files {
            let made = try OutputFile(creating: name + Self.suffix, in: directory, size: bytes.count, reserve: false)
            try made.write(bytes)
            try made.sync()
            try directory.replace(name, by: name + Self.suffix)
        }
        return parts + files.map(\.name)
    }

    /// Removes what a repair that was killed has left.
    private func removeLeftovers() throws(TesseraError) {
        let own = Set((manifest.parts.map(\.file) + manifest.files.map(\.file)).map { $0 + Self.suffix })
        for name in try directory.filesBelow() where own.contains(name) { directory.removeFile(name) }
    }

    // MARK: The plan

    /// The plan of the output. Analysis stages that it follows from are done again.
    private func replan() async throws -> Plan {
        var request = request, plan = try Planner.plan(request), statistics: [[ExactText: TensorStatistics]] = []
        request.pinnedFiles = plan.pinnedFiles
        while plan.hasMoreStages {
            statistics.append(try await measure(plan))
            plan = try Planner.plan(request, after: statistics)
        }
        return plan
    }

    /// The statistics of all tensors of a plan, whose bytes go nowhere.
    private func measure(_ plan: Plan) async throws -> [ExactText: TensorStatistics] {
        var statistics: [ExactText: TensorStatistics] = [:]
        for shard in plan.stages.joined() {
            let result = try await compute(plan.work(of: shard), into: RepairedParts())
            for (tensor, found) in zip(shard.tensors, result.statistics) { statistics[ExactText(tensor.name)] = found }
        }
        return statistics
    }

    private func compute(_ work: ShardWork, into output: RepairedParts) async throws -> ShardResult {
        try await executor.run(work, output: output, progress: ShardProgress())
    }

    /// - Throws: `badData` when the plan is of another output.
    private func check(_ plan: Plan) throws(TesseraError) {
        guard manifest.numericsVersion == numericsVersion else {
            throw stranger("it was made by Tessera \(manifest.tessera), whose arithmetic is another")
        }
        let own = plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) }
        for (made, found) in zip(manifest.inputs, own) {
            for (part, other) in zip(made.parts, found.parts) where !part.isSame(as: other) {
                throw stranger("the input \(made.model)/\(part.file) is another now")
            }
        }
        let parts =
            plan.reused.map(\.part).map { ($0.file, $0.size, $0.headerDigest) }
            + plan.layout.parts.map { ($0.fileName, $0.fileSize, $0.headerDigest) }
        guard parts.count == manifest.parts.count else {
            throw stranger("it has \(manifest.parts.count) parts, and the recipe makes \(parts.count)")
        }
        for (part, (name, size, header)) in zip(manifest.parts, parts) {
            guard part.file == name, part.size == size, part.headerDigest == header else {
                throw stranger("the recipe makes other tensors than those of \(part.file)")
            }
        }
    }

    private func stranger(_ problem: String) -> TesseraError {
        TesseraError(
            .badData, "cannot be mended: \(problem)", file: path,
            advice: "give the recipe, the options, the inputs and the version of Tessera that it was made with, as "
                + "\(Manifest.fileName) names them")
    }

    // MARK: Parts

    private func mendParts(_ damaged: Set<String>, of plan: Plan) async throws -> [String] {
        let firstPart = plan.reused.count
        var repairs: [PartRepair] = []
        do {
            for (index, part) in manifest.parts.enumerated() where damaged.contains(part.file) {
                var repair = try PartRepair(part, in: directory, from: path, suffix: Self.suffix)
                repairs.append(repair)
                if index >= firstPart {
                    try repair.writeHeader(plan.layout.parts[index - firstPart].header)
                } else if !repair.isWhole {
                    // It came from another store, where it may be good.
                    try repair.copy(from: try? request.roots.files.open(plan.reused[index].path))
                    guard repair.isWhole else {
                        throw stranger("\(part.file) came from another store, and is damaged there as well")
                    }
                }
                repairs[repairs.count - 1] = repair
            }
            try await compute(&repairs, of: plan, firstPart: firstPart)
            for repair in repairs { try repair.finish() }
        } catch {
            for repair in repairs { repair.giveUp() }
            throw error
        }
        return repairs.map(\.part.file)
    }

    /// Computes every tensor that has a damaged block.
    private func compute(_ repairs: inout [PartRepair], of plan: Plan, firstPart: Int) async throws {
        guard repairs.contains(where: { !$0.missing.isEmpty }) else { return }
        let numbers = Dictionary(
            uniqueKeysWithValues: manifest.parts.enumerated().map { ($1.file, $0 - firstPart) })
        var output = RepairedParts(), wanted: Set<RepairedParts.Place> = []
        for repair in repairs {
            guard let number = numbers[repair.part.file] else { continue }
            output.files[number] = repair.file
            wanted.formUnion(repair.missing.map { RepairedParts.Place(part: number, offset: $0) })
        }
        let tensors = plan.stages.joined().flatMap(\.tensors).filter { tensor in
            tensor.outputs.contains { wanted.contains(RepairedParts.Place($0)) }
        }
        let work = plan.work(of: PlannedShard(label: "repair", tensors: tensors))
        output.outputs = work.outputs.map { wanted.contains(RepairedParts.Place($0)) ? $0 : nil }
        let result = try await compute(work, into: output)
        for (output, digests) in zip(output.outputs, result.digests) {
            guard let output else { continue }
            let made = manifest.parts[output.part + firstPart].tensors.first { $0.name == output.name }
            guard made?.blocks == digests else {
                throw stranger("the tensor '\(output.name)' comes out otherwise")
            }
        }
    }

    // MARK: Small files

    private func smallFiles(_ damaged: Set<String>, of plan: Plan) async throws -> [(name: String, bytes: [UInt8])] {
        var files: [(name: String, bytes: [UInt8])] = []
        for file in manifest.files where damaged.contains(file.file) {
            guard let bytes = try await contents(of: file.file, plan) else {
                throw stranger("the recipe makes no file \(file.file)")
            }
            guard try Digest.sha256(of: bytes) == file.digest else { throw stranger("\(file.file) comes out otherwise") }
            files.append((file.file, bytes))
        }
        return files
    }

    private func contents(of name: String, _ plan: Plan) async throws -> [UInt8]? {
        if let sidecar = plan.sidecars.first(where: { $0.name == name }) {
            return try sidecar.contents(from: request.roots.files)
        }
        if let derived = plan.derived.first(where: { $0.name == name }) {
            return try await derived.contents(measure(plan))
        }
        for (index, checkpoint) in plan.swept.enumerated() where name.hasPrefix("\(checkpoint.folder)/") {
            let own = String(name.dropFirst(checkpoint.folder.utf8.count + 1))
            if own == Manifest.fileName { return try sweptManifest(index, plan).encoded() }
            return try checkpoint.sidecars.first { $0.name == own }?.contents(from: request.roots.files)
        }
        return nil
    }

    /// The manifest of one of a sweep's folders, which follows from that of the whole.
    private func sweptManifest(_ index: Int, _ plan: Plan) throws(TesseraError) -> Manifest {
        let checkpoint = plan.swept[index], width = manifest.parts.count / plan.swept.count
        let prefix = "\(checkpoint.folder)/"
        let files = manifest.files.filter { $0.file.hasPrefix(prefix) && $0.file != prefix + Manifest.fileName }
        return Manifest(
            tessera: manifest.tessera, numericsVersion: manifest.numericsVersion,
            recipe: try .sha256(of: Array(checkpoint.recipeText.utf8)), plan: manifest.plan, inputs: manifest.inputs,
            parts: manifest.parts[index * width..<(index + 1) * width].map(\.besideManifest),
            files: files.map { ManifestFile(file: String($0.file.dropFirst(prefix.count)), size: $0.size, digest: $0.digest) })
    }
}
