import Checkpoints
import Core
import Recipes
import TaskVectors
import Work

/// Makes a store's index of the plan and of the statistics of its tensors.
package struct StoreIndexWriter: Sendable {
    let recipe: StoreRecipe
    let inputs: [PlannedInput]
    let tensors: [StoreTensor]
    /// Of each of the tensors.
    let encodings: [Encoding]
    /// By task, and of the shared vector.
    let files: [String: [String]]
    /// Of the store that is extended.
    let extended: StoreIndex?
    /// For each task, the share of its energy that a budget expects to lose.
    let predicted: [Double]?
    /// Of each tensor, what a budget predicted of its vectors; empty for what has no such budget.
    let losses: [ExactText: Double]
    /// Decides which elements thinned vectors keep.
    let seed: UInt64
    let masks: ThinnedGrid.Masks

    func index(statistics: [ExactText: TensorStatistics]) throws(TesseraError) -> StoreIndex {
        var entries: [StoreIndex.Tensor] = []
        var found: [EncodingStatistics] = []
        for tensor in tensors {
            guard let statistics = statistics[ExactText(tensor.name)]?.encoding, let base = statistics.base,
                statistics.taskCount == recipe.tasks.count
            else {
                throw TesseraError(.internal, "no statistics for this tensor", tensor: tensor.name)
            }
            entries.append(
                StoreIndex.Tensor(
                    name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, base: base,
                    measured: measured(of: tensor, statistics)))
            found.append(statistics)
        }
        if let old = extended, let other = zip(old.tensors, entries).first(where: { $0.base != $1.base }) {
            throw TesseraError(
                .badData, "the base is not the base of the extended store", file: recipe.file, tensor: other.0.name,
                advice: "use the store's base, '\(old.base.model)'")
        }
        let tasks = try recipe.tasks.enumerated().map { (number, task) throws(TesseraError) in
            try self.task(task, number: number, statistics: found)
        }
        let input = inputs[0]
        let base = StoreIndex.Base(
            model: input.reference, parts: input.parts.map(\.unpinned),
            digest: try TreeDigest.tensor(blocks: entries.map(\.base.digest)))
        return StoreIndex(
            base: extended?.base ?? base, tensors: entries, shared: shared, tasks: (extended?.tasks ?? []) + tasks)
    }

    /// Over all tasks.
    private func measured(of tensor: StoreTensor, _ statistics: EncodingStatistics) -> StoreIndex.Measured? {
        guard let loss = losses[ExactText(tensor.name)], case .vectors(_, let tasks) = statistics else { return nil }
        let energy = tasks.reduce(0) { $0 + $1.energy }
        guard energy > 0 else { return nil }
        return StoreIndex.Measured(
            error: tasks.reduce(0) { $0 + $1.error } / energy, bias: tasks.reduce(0) { $0 + ($1.product ?? 0) } / energy - 1,
            loss: loss)
    }

    private var shared: StoreIndex.Shared? {
        if let old = extended?.shared { return old }
        let formats = encodings.map { encoding -> StorageFormat? in
            switch encoding {
            case .quantize(let quantizer): quantizer.shared
            case .mask(let masks): .dense(masks.shared)
            default: nil
            }
        }
        guard formats.contains(where: { $0 != nil }) else { return nil }
        return StoreIndex.Shared(files: files[StorePlanner.sharedName] ?? [], formats: formats)
    }

    private func task(
        _ task: StoreRecipe.Task, number: Int, statistics: [EncodingStatistics]
    ) throws(TesseraError) -> StoreIndex.Task {
        let factor = factor(ofTask: number, statistics), packed = packed(ofTask: number)
        var error = 0.0, energy = 0.0, product: Double? = packed == nil ? nil : 0
        var lost: [String] = []
        for (tensor, (encoding, found)) in zip(tensors, zip(encodings, statistics)) {
            switch (encoding, found) {
            case (.compare, .comparison(_, let differ)): if differ[number] { lost.append(tensor.name) }
            case (.mask, .masks(_, let tasks)):
                let sums = tasks[number]
                energy += sums.energy
                error +=
                    factor == 1 ? sums.error : sums.energy - 2 * factor * sums.product + factor * factor * sums.masked
            case (.quantize, .vectors(_, let tasks)), (.sparsify, .vectors(_, let tasks)):
                error += tasks[number].error
                energy += tasks[number].energy
                if let own = tasks[number].product { product? += own }
            default: throw TesseraError(.internal, "a worker's statistics are those of another encoding", tensor: tensor.name)
            }
        }
        let input = inputs.first { $0.reference == "\(task.model.value)" }
        let formats = encodings.map { encoding in
            encoding.formats.isEmpty ? nil : encoding.formats.suffix(recipe.tasks.count).dropFirst(number).first
        }
        return StoreIndex.Task(
            name: task.name, model: "\(task.model.value)", parts: (input?.parts ?? []).map(\.unpinned), scheme: recipe.title,
            files: files[task.name] ?? [], packed: packed,
            seed: formats.contains { $0?.isThinned == true } ? seed : nil, masks: masks, formats: formats, factor: factor,
            error: max(0, error), energy: energy, bias: product.map { energy > 0 ? $0 / energy - 1 : 0 },
            predicted: predicted?[number], lost: lost)
    }

    /// EMR's rescaler: `Σ mean|τ| / Σ mean|u|` over the tensors, or the same of sums (arXiv 2405.17461; the authors' code has
    /// means).
    private func factor(ofTask number: Int, _ statistics: [EncodingStatistics]) -> Double {
        guard case .sparsify(.emr(let sumsOfMeans), _) = recipe.kind else { return 1 }
        var own = 0.0, masked = 0.0
        for (tensor, found) in zip(tensors, statistics) {
            guard case .masks(_, let tasks) = found else { continue }
            let count = sumsOfMeans ? Double(max(1, tensor.elementCount)) : 1
            own += tasks[number].magnitudes / count
            masked += tasks[number].maskedMagnitudes / count
        }
        return masked > 0 ? own / masked : 1
    }
}
