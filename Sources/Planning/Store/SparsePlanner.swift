import Core
import Operators
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
        case .magnitude(let density, isModelWide: true): return try planModelWide(density: density)
        case .random(let density):
            guard let statistics = planner.statistics.first else {
                return try planner.analysisStage("dare") { tensor in
                    tensor.isEncoded ? .countKept(try random(tensor, density: density, kept: tensor.allKept(taskCount))) : nil
                }
            }
            return try planner.write { tensor in
                guard tensor.isEncoded else { return planner.raw(tensor) }
                return .sparsify(try random(tensor, density: density, kept: counts(statistics[ExactText(tensor.name)], tensor)))
            }
        case .magnitude(let density, isModelWide: false):
            return try planner.write { tensor in
                guard tensor.isEncoded else { return planner.raw(tensor) }
                return largest(Array(repeating: Int(density * Double(tensor.elementCount)), count: taskCount), in: tensor)
            }
        case .blocks(let n, let m, let prorates, let isDisjoint):
            return try planner.write { tensor in
                guard tensor.isEncoded else { return planner.raw(tensor) }
                let tail = prorates ? EntryBlocks.Tail.prorate : .drop
                let kept = EntryBlocks(kept: n, size: m, tail: tail).kept(of: tensor.elementCount)
                return .sparsify(
                    SparseEncoder(
                        selection: .blocks(n: n, m: m, tail: tail, isDisjoint: isDisjoint), values: format(in: tensor),
                        kept: Array(repeating: kept, count: taskCount)))
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
    private func counts(_ found: TensorStatistics?, _ tensor: StoreTensor) throws(TesseraError) -> [Int] {
        guard case .encoding(.kept(let counts)) = found, counts.count == taskCount,
            counts.allSatisfy({ (0...tensor.elementCount).contains($0) })
        else {
            throw Self.impossible(tensor)
        }
        return counts
    }

    private static func impossible(_ tensor: StoreTensor) -> TesseraError {
        TesseraError(.internal, "the statistics hold counts that cannot be of this tensor", tensor: tensor.name)
    }

    private func largest(_ kept: [Int], in tensor: StoreTensor) -> Encoding {
        .sparsify(SparseEncoder(selection: .largest(kept), values: format(in: tensor), kept: kept))
    }

    // MARK: A share of the whole model

    /// What one task keeps of the whole model: all magnitudes above a threshold, and of those equal to it the first few, in byte
    /// order of the tensors' names.
    private struct Threshold {
        /// The bin of the first round, and how many elements are to be kept of it.
        let bin: UInt32
        let left: Int
    }

    private func planModelWide(density: Double) throws -> Plan {
        let tensors = planner.tensors.filter(\.isEncoded)
        let kept = Int(density * Double(tensors.reduce(0) { $0 + $1.elementCount }))
        guard planner.statistics.count > 0 else {
            return try planner.analysisStage("magnitude") { tensor in
                tensor.isEncoded ? .measureMagnitudes(.first(tasks: taskCount)) : nil
            }
        }
        let first = try histograms(of: tensors, planner.statistics[0])
        let thresholds = (0..<taskCount).map { Self.threshold(rank: kept, in: first.lazy.map(\.[$0])) }
        guard planner.statistics.count > 1 else {
            return try planner.analysisStage("magnitude") { tensor in
                tensor.isEncoded ? .measureMagnitudes(.second(bins: thresholds.map { $0?.bin })) : nil
            }
        }
        let second = try histograms(of: tensors, planner.statistics[1])
        var keptByTensor: [ExactText: [Int]] = [:]
        for tensor in tensors { keptByTensor[ExactText(tensor.name)] = Array(repeating: 0, count: taskCount) }
        for task in 0..<taskCount {
            let counts = Self.kept(above: thresholds[task], first.map { $0[task] }, second.map { $0[task] })
            for (tensor, count) in zip(tensors, counts) { keptByTensor[ExactText(tensor.name)]?[task] = count }
        }
        return try planner.write { tensor in
            guard let kept = keptByTensor[ExactText(tensor.name)] else { return planner.raw(tensor) }
            return largest(kept, in: tensor)
        }
    }

    /// The histograms that a stage measured, by tensor and task.
    ///
    /// - Throws: `internal` for counts that cannot be of that tensor.
    private func histograms(
        of tensors: [StoreTensor], _ statistics: [ExactText: TensorStatistics]
    ) throws(TesseraError) -> [[MagnitudeCounts]] {
        var found: [[MagnitudeCounts]] = []
        for tensor in tensors {
            guard case .encoding(.magnitudes(let tasks)) = statistics[ExactText(tensor.name)], tasks.count == taskCount else {
                throw Self.impossible(tensor)
            }
            guard tasks.allSatisfy({ $0.fit(tensor.elementCount) }) else { throw Self.impossible(tensor) }
            found.append(tasks)
        }
        return found
    }

    /// - Returns: `nil` where nothing is kept.
    private static func threshold(rank: Int, in histograms: some Sequence<MagnitudeCounts>) -> Threshold? {
        guard rank > 0 else { return nil }
        var totals: [UInt32: Int] = [:]
        for histogram in histograms { histogram.add(to: &totals) }
        return totals.place(ofLargest: rank).map { Threshold(bin: $0.bin, left: rank - $0.above) }
    }

    /// How many entries of each tensor are kept.
    ///
    /// - Parameters:
    ///   - first: of each tensor the histogram of the first round.
    ///   - second: of each tensor the histogram of the second round, within the threshold's bin.
    private static func kept(above threshold: Threshold?, _ first: [MagnitudeCounts], _ second: [MagnitudeCounts]) -> [Int] {
        guard let threshold, let fine = Self.threshold(rank: threshold.left, in: second) else { return first.map { _ in 0 } }
        var equalLeft = fine.left
        return zip(first, second).map { coarse, inBin in
            let equal = min(equalLeft, inBin.entries.first { $0.bin == fine.bin }?.count ?? 0)
            equalLeft -= equal
            return (coarse.entries.filter { $0.bin > threshold.bin } + inBin.entries.filter { $0.bin > fine.bin }).reduce(equal) {
                $0 + $1.count
            }
        }
    }
}

extension StoreTensor {
    fileprivate func allKept(_ tasks: Int) -> [Int] { Array(repeating: elementCount, count: tasks) }
}
