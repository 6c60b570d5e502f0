package import Core
import Planning
package import TaskVectors

/// What storing a task vector lost, for each tensor: measured from the base, the fine-tune, and the stored task.
package struct StoreErrors: Sendable {
    /// `Σ(τ − τ̂)²` and `Στ²` of a tensor.
    package let tensors: [ExactText: (lost: Double, all: Double)]

    /// - Parameters:
    ///   - base: a reference to the store's base.
    ///   - memory: bytes, for everything.
    ///   - progress: called from any thread with the bytes of each tensor that was read.
    /// - Throws: `inputMissing` when base or fine-tune are not where the store's recipe found them.
    package init(
        of task: StoreIndex.Task, in store: TaskVectorStore, base: String, workingDirectory: String, threads: Int, memory: Int,
        progress: @escaping @Sendable (Int) -> Void = { _ in }
    ) async throws {
        let models: OpenedModels
        do {
            models = try OpenedModels.open(
                [base, task.model, "\(store.directory)#\(task.name)"], base: base, workingDirectory: workingDirectory)
        } catch let problems as Problems {
            throw Problems(
                problems.all.map { problem in
                    guard problem.code == .inputMissing else { return problem }
                    var problem = problem
                    problem.advice =
                        "the store names its models as its recipe did: go where that was run, or name the base with --base"
                    return problem
                })
        }
        let measurement = try await ModelMeasurement(models, threads: threads, memory: memory, progress: progress)
        tensors = measurement.tensors.reduce(into: [:]) { found, tensor in
            let all = tensor.changes.norm(of: 0) * tensor.changes.norm(of: 0)
            found[ExactText(tensor.name)] = ((tensor.changes.squaredError(of: 0, as: 1) ?? 0) * all, all)
        }
    }
}
