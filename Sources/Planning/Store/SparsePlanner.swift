import Core
import Recipes
import TaskVectors
import TensorKernels
import Work

/// Plans a store of sparse task vectors, or of masks over a shared one.
struct SparsePlanner: Sendable {
    let planner: StorePlanner
    let sparsity: StoreRecipe.Sparsity
    let values: StoreRecipe.Values

    private var taskCount: Int { planner.tasks.count }

    func plan() throws -> Plan {
        switch sparsity {
        case .magnitude(let density, isModelWide: true): return try firstRound(density: density)
        case .random(let density):
            return try planner.analysisStage("dare") { tensor in
                tensor.isEncoded ? .countKept(try random(tensor, density: density, kept: tensor.allKept(taskCount))) : nil
            } next: { [self] statistics in
                try planner.write { tensor in
                    guard tensor.isEncoded, let found = statistics[tensor.name] else { return planner.raw(tensor) }
                    return .sparsify(try random(tensor, density: density, kept: counts(found, tensor)))
                }
            }
        case .magnitude(let density, isModelWide: false):
            return try planner.write { tensor in
                guard tensor.isEncoded else { return planner.raw(tensor) }
                return largest(Array(repeating: Int(density * Double(tensor.elementCount)), count: taskCount), in: tensor)
            }
        case .blocks(let n, let m, let prorates, let isDisjoint):
            return try planner.write { tensor in
                guard tensor.isEncoded else { return planner.raw(tensor) }
                let tail = prorates ? Selection.Tail.prorate : .drop
                return .sparsify(
                    SparseEncoder(
                        selection: .blocks(n: n, m: m, tail: tail, isDisjoint: isDisjoint), values: format(in: tensor),
                        kept: Array(repeating: Selection.kept(n: n, m: m, tail: tail, of: tensor.elementCount), count: taskCount))
                )
            }
        case .tall(let lambdas): return try masks(.tall(lambdas))
        case .emr: return try masks(.emr)
        }
    }

    private func masks(_ rule: TaskMasks.Rule) throws -> Plan {
        try planner.write { tensor in
            guard tensor.isEncoded else { return planner.raw(tensor) }
            return .mask(TaskMasks(rule: rule, shared: format(in: tensor), taskCount: taskCount))
        }
    }

    /// The recipe's, or else the models' own type; a difference of float8 numbers often takes more than eight bits.
    private func format(in tensor: StoreTensor) -> ValueFormat {
        if let grid = values.grid { return .grid(grid.format) }
        let types = Set(tensor.sources.map(\.dtype))
        let own: DType =
            switch types.first {
            case .f8E4M3, .f8E5M2: .bf16
            case .f64, nil: .f32
            case let type?: type
            }
        return .raw(values.dtype ?? (types.count == 1 ? own : .f32))
    }

    /// Draws depend on the task's name, not on its place in the recipe, so that it may be added to a store later.
    private func random(_ tensor: StoreTensor, density: Double, kept: [Int]) throws(TesseraError) -> SparseEncoder {
        var keys: [UInt64] = []
        for task in planner.tasks {
            keys.append(try CounterRandom.key(seed: planner.request.seed, tensor: "\(task)#\(tensor.name)"))
        }
        return SparseEncoder(selection: .random(density: density, keys: keys), values: format(in: tensor), kept: kept)
    }

    /// - Throws: `internal` for counts that cannot be of that tensor.
    private func counts(_ found: TensorStatistics, _ tensor: StoreTensor) throws(TesseraError) -> [Int] {
        guard case .encoding(.kept(let counts)) = found, counts.count == taskCount,
            counts.allSatisfy({ (0...tensor.elementCount).contains($0) })
        else {
            throw TesseraError(.internal, "a worker counted what cannot be", tensor: tensor.name)
        }
        return counts
    }

    private func largest(_ kept: [Int], in tensor: StoreTensor) -> Encoding {
        .sparsify(SparseEncoder(selection: .largest(kept), values: format(in: tensor), kept: kept))
    }

    // MARK: A share of the whole model

    /// What one task keeps of the whole model: all magnitudes above a threshold, and of those equal to it the first few, in byte order of the
    /// tensors' names.
    private struct Threshold {
        /// The bin of the first round, and how many elements are to be kept of it.
        let bin: UInt32
        let left: Int
    }

    private func firstRound(density: Double) throws -> Plan {
        let tensors = planner.tensors.filter(\.isEncoded)
        let kept = Int(density * Double(tensors.reduce(0) { $0 + $1.elementCount }))
        return try planner.analysisStage("magnitude") { tensor in
            tensor.isEncoded ? .measureMagnitudes(.first(tasks: taskCount)) : nil
        } next: { [self] first in
            let thresholds = (0..<taskCount).map { Self.threshold(rank: kept, of: $0, in: first) }
            return try planner.analysisStage("magnitude") { tensor in
                tensor.isEncoded ? .measureMagnitudes(.second(bins: thresholds.map { $0?.bin })) : nil
            } next: { second in
                let counts = (0..<taskCount).map { task in
                    Self.kept(task, above: thresholds[task], of: tensors.map(\.name), first, second)
                }
                return try planner.write { tensor in
                    guard tensor.isEncoded else { return planner.raw(tensor) }
                    return largest(counts.map { $0[tensor.name] ?? 0 }, in: tensor)
                }
            }
        }
    }

    private static func pairs(of task: Int, in found: TensorStatistics?) -> [MagnitudeCount] {
        guard case .encoding(.magnitudes(let tasks)) = found, tasks.indices.contains(task) else { return [] }
        return tasks[task]
    }

    /// - Returns: `nil` where nothing is kept.
    private static func threshold(rank: Int, of task: Int, in statistics: [String: TensorStatistics]) -> Threshold? {
        guard rank > 0 else { return nil }
        var totals: [UInt32: Int] = [:]
        for found in statistics.values {
            for found in pairs(of: task, in: found) { totals[found.bin, default: 0] += found.count }
        }
        var above = 0
        for (bin, count) in totals.sorted(by: { $0.key > $1.key }) {
            if above + count >= rank { return Threshold(bin: bin, left: rank - above) }
            above += count
        }
        return nil
    }

    /// How many entries of each tensor are kept.
    private static func kept(
        _ task: Int, above threshold: Threshold?, of tensors: [String], _ first: [String: TensorStatistics],
        _ second: [String: TensorStatistics]
    ) -> [String: Int] {
        guard let threshold else { return [:] }
        // The second round, within the bin.
        guard let fine = Self.threshold(rank: threshold.left, of: task, in: second) else { return [:] }
        var equalLeft = fine.left
        var kept: [String: Int] = [:]
        for name in tensors {
            let coarse = pairs(of: task, in: first[name]).filter { $0.bin > threshold.bin }
            let inBin = pairs(of: task, in: second[name])
            let equal = min(equalLeft, inBin.first { $0.bin == fine.bin }?.count ?? 0)
            equalLeft -= equal
            kept[name] = (coarse + inBin.filter { $0.bin > fine.bin }).reduce(equal) { $0 + $1.count }
        }
        return kept
    }
}

extension StoreTensor {
    fileprivate func allKept(_ tasks: Int) -> [Int] { Array(repeating: elementCount, count: tasks) }
}
