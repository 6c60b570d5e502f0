import Core
import Foundation
import Operators
import Planning
import Protocol
import TaskVectors
import TestSupport
import Work

@testable import Coordinator

/// Small models, recipes over them, and what a worker would answer.
struct TestJobs {
    private let directory: TemporaryDirectory

    static let linear = "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n"
    /// A store whose sizes depend on how many entries are kept: the job begins with an analysis stage.
    static let store = "sparsify: {method: dare, density: 0.5}\nbase_model: a\nmodels:\n- {model: b, task: b}\n"

    /// Three stages measure the model before it merges.
    static let modelWide =
        "merge_method: ties\nbase_model: a\nmodels:\n- {model: b, parameters: {weight: 1, density: 0.5}}\n"
        + "parameters: {trim: model}\n"

    /// - Parameter elements: of each tensor, float32.
    init(elements: Int = 4) throws {
        directory = try TemporaryDirectory()
        for (model, value) in [("a", Float(1)), ("b", 2)] {
            let tensors = (0..<3).map { ("layers.\($0).w", TestTensor(Array(repeating: value, count: elements))) }
            try TestTensor.writeCheckpoint("\(directory.path)/\(model)", tensors)
        }
    }

    var path: String { directory.path }

    /// Writes a model anew, with the same bytes.
    func touch(_ model: String) throws {
        let file = URL(fileURLWithPath: "\(path)/\(model)/model.safetensors")
        try Data(contentsOf: file).write(to: file, options: .atomic)
    }

    func rename(_ model: String, to name: String) throws {
        try FileManager.default.moveItem(atPath: "\(path)/\(model)", toPath: "\(path)/\(name)")
    }

    func submission(_ recipe: String = linear, output: String = "/out") -> Submit {
        Submit(
            recipe: recipe, recipeName: "recipe.yml", workingDirectory: directory.path, output: output,
            options: JobOptions(shardBytes: 1))
    }

    /// Three layers, by default a shard for each.
    func stages(_ recipe: String = linear, shardBytes: Int? = 1) throws -> PlannedStages {
        let request = PlanRequest(
            recipe: recipe, recipeName: "recipe.yml", workingDirectory: directory.path, shardBytes: shardBytes)
        return PlannedStages(try Planner.plan(request), request: request)
    }
}

extension Lease {
    /// As if every block were zeros, as an output that is laid out holds them. An analysis keeps two entries of each tensor; what
    /// is measured has all magnitudes in one bin, and a vote for plus.
    func done(delivery: Delivery = .direct) throws -> ShardDone {
        let digest = try Digest.sha256(of: [])
        let base = BaseIdentity(digest: digest, sample: digest)
        let statistics = work.tensors.compactMap { tensor -> TensorStatistics? in
            switch tensor.operation {
            case .merge, .factor: return nil
            case .encode:
                return .encoding(
                    tensor.outputs.isEmpty ? .kept([2]) : .vectors(base: base, [VectorError(error: 2, energy: 0)]))
            case .measure(_, let stage):
                let all = MagnitudeCounts([MagnitudeCount(bin: 1, count: tensor.elementCount)]),
                    votes = tensor.sources.map { _ in 1.0 }
                return .merge(
                    MergeStatistics(
                        ["plus": votes, "minus": votes],
                        counts: stage.prefixes.mapValues { $0.map { $0 == nil ? MagnitudeCounts([]) : all } }))
            }
        }
        return ShardDone(
            attempt: attempt,
            result: ShardResult(
                digests: delivery == .relayed
                    ? []
                    : try work.outputs.map { output in
                        try stride(from: 0, to: output.byteCount, by: output.blockSize).map { start in
                            try .sha256(of: Array(repeating: 0, count: min(output.blockSize, output.byteCount - start)))
                        }
                    },
                statistics: statistics),
            delivery: delivery)
    }
}

extension WorkerDescription {
    static func test(_ name: String = "w", threads: Int = 2) -> WorkerDescription {
        WorkerDescription(
            name: name, address: "h", build: "b", threads: threads, memory: 1 << 30, tensorMemory: 1 << 30)
    }
}

extension JobManager {
    /// As the user of the process.
    func submit(_ submission: Submit) async throws -> Submitted { try await submit(submission, by: .local) }

    func cancel(_ id: JobID, reason: String) async throws { try await cancel(id, reason: reason, by: .local) }

    func status(_ request: StatusRequest) -> Status? { status(request, for: .local) }
}
