import Core
import Recipes
import TaskVectors
import TensorKernels
import Work

/// Plans a quantized store under a bit budget: one stage measures how well each format would do, then the budget is shared out.
struct BudgetPlanner: Sendable {
    let planner: StorePlanner
    let budget: StoreRecipe.Budget
    let isResidual: Bool

    private static func runs(_ bits: Int, _ length: Int) -> StorageFormat {
        .dense(.grid(Grid(bits: bits, granularity: .group(length))))
    }

    /// What is measured: enough that more would gain about a hundredth.
    private static let formats: [StorageFormat] =
        (1...4).flatMap { bits in [64, 128, 512].map { runs(bits, $0) } } + [5, 6, 8].map { runs($0, 128) } + [
            .dense(.raw(.bf16))
        ]

    /// What is measured for a budget that thins: every number of bits, each element kept. How others do follows from these.
    private static let measuredFormats: [StorageFormat] = (1...5).map { .thinned(ThinnedGrid(bits: $0, group: 64, every: 1)) }

    /// Elements of the smallest vector that is thinned: in a smaller one, such as a bias, what is dropped does not average out.
    private static let leastThinned = 4096

    /// A tensor of which less changed counts as much as one with so many elements: exact biases and norms cost little and are
    /// worth it.
    private static let leastCounted = 4 * leastThinned

    /// Bytes of the largest vector that is packed with others. A header and a manifest say some 500 bytes of each that is not.
    static let packLimit = 4096
    private static let descriptionBytes = 512

    private static let sharedFormats: [StorageFormat] = [.zero] + (1...4).map { runs($0, 128) }

    /// What is measured of a tensor. A store that is extended has its shared vector already, or none for this tensor.
    private func measurement(_ tensor: StoreTensor) -> GridMeasurement {
        let isNew = isResidual && planner.extended == nil && planner.tasks.count > 1
        return GridMeasurement(
            shared: isNew ? Self.sharedFormats : [.zero],
            sharedIsFrozen: isResidual && planner.extended?.hasShared(tensor) == true,
            formats: thins ? Self.measuredFormats : Self.formats)
    }

    /// Whether vectors may be thinned, small ones are packed, and the budget covers everything that is stored.
    private var thins: Bool { !isResidual && (budget.thins ?? (bitsPerParameter < 2)) }

    private var bitsPerParameter: Double {
        switch budget.amount {
        case .bits(let bits): return bits
        case .share(let share):
            let tensors = planner.tensors.filter(\.isArithmetic)
            let bytes = tensors.reduce(0) { $0 + $1.byteCount }, elements = tensors.reduce(0) { $0 + $1.elementCount }
            return share * Double(8 * bytes) / Double(max(1, elements))
        }
    }

    func plan() throws -> Plan {
        let weights = try weights()
        guard let statistics = planner.statistics.first else {
            return try planner.analysisStage("budget", expecting: byteBudget(planner.tensors.filter(\.isArithmetic))) {
                .measureGrids(measurement($0))
            }
        }
        return try plan(after: statistics, weights: weights)
    }

    // MARK: Sharing out

    private func plan(after statistics: [ExactText: TensorStatistics], weights: (String) -> Double) throws -> Plan {
        let tensors = planner.tensors.filter(\.isArithmetic), total = byteBudget(tensors)
        let found = try tensors.map { tensor throws(TesseraError) in try measured(tensor, statistics) }
        let changes = relativeChanges(tensors, found)
        let units = zip(tensors, found).map { unit($0, $1, weight: weights($0.name), changes) }
        // What describes the vectors depends a little on how they are stored, and is known once that is chosen.
        var description = 0
        for _ in 0..<8 {
            let (choices, least) = BitBudget(units: units, budget: total - description).solve()
            guard let choices else {
                throw TesseraError(
                    .badData,
                    "the budget of \(total) bytes is too small; the smallest formats need \(least + description) bytes",
                    file: planner.recipe.file, line: budget.line, advice: "raise the budget or lower the floor")
            }
            let plan = try write(choices, tensors, found)
            guard thins else { return plan }
            let excess = try StoreSize(of: plan, extending: planner.extended).charged - total
            guard excess > 0 else { return plan }
            description += excess
        }
        throw TesseraError(.internal, "no choice of formats keeps to the budget of \(total) bytes", file: planner.recipe.file)
    }

    private func write(
        _ choices: [BitBudget.Choice], _ tensors: [StoreTensor], _ found: [[GridErrors]]
    ) throws -> Plan {
        let byName = Dictionary(uniqueKeysWithValues: zip(tensors.map { ExactText($0.name) }, choices))
        let packLimit = thins ? Self.packLimit : nil
        return try planner.write(
            { tensor in
                guard let choice = byName[ExactText(tensor.name)], tensor.isEncoded else {
                    return planner.raw(tensor, packLimit: packLimit)
                }
                let measurement = measurement(tensor), options = options(tensor)
                let shared = measurement.shared[sharedFormat(choice)], isFrozen = measurement.sharedIsFrozen
                return .quantize(
                    Quantizer(
                        shared: isFrozen ? .zero : shared == .zero ? nil : shared,
                        sharedIsFrozen: isFrozen,
                        tasks: try zip(planner.tasks, choice.options).map { task, option throws(TesseraError) in
                            try options[option].keyed(
                                seed: planner.request.seed, planner.recipe.masks, task: task, tensor: tensor.name)
                        }, packLimit: packLimit))
            }, predicted: predictedErrors(choices, tensors, found),
            losses: thins ? predictedLosses(choices, tensors, found) : [:])
    }

    /// Bytes for everything that is stored, the tensors that are left as they are included.
    private func byteBudget(_ tensors: [StoreTensor]) -> Int {
        switch budget.amount {
        case .bits(let bits):
            Int(bits * Double(tensors.reduce(0) { $0 + $1.elementCount }) * Double(planner.tasks.count) / 8)
        case .share(let share): Int(share * Double(tensors.reduce(0) { $0 + $1.byteCount }) * Double(planner.tasks.count))
        }
    }

    /// What a tensor of one task may become: any of the formats, nothing, or what the recipe says of tensors that are left alone.
    private func options(_ tensor: StoreTensor) -> [StorageFormat] {
        guard tensor.isEncoded else { return [.dense(.raw(planner.recipe.rest))] }
        guard thins else { return Self.formats + [.zero] }
        return Self.measuredFormats.flatMap { format in strides(tensor).map { format.keeping(oneOf: $0) } } + [.zero]
    }

    /// Of how many elements one may be kept.
    private func strides(_ tensor: StoreTensor) -> [Int] { tensor.elementCount < Self.leastThinned ? [1] : Thinning.strides }

    /// Whether all tasks of a tensor keep the same elements: the tensor's stride is chosen for all of them.
    private var hasCommonMasks: Bool { thins && budget.hasCommonMasks }

    /// The number of the shared vector's format. With common masks a unit's choices are strides, and there is no shared vector.
    private func sharedFormat(_ choice: BitBudget.Choice) -> Int { hasCommonMasks ? 0 : choice.shared }

    private func measured(
        _ tensor: StoreTensor, _ statistics: [ExactText: TensorStatistics]
    ) throws(TesseraError) -> [GridErrors] {
        let measurement = measurement(tensor)
        guard case .encoding(.grids(let tasks)) = statistics[ExactText(tensor.name)], tasks.count == planner.tasks.count,
            tasks.allSatisfy({ $0.errors.map(\.count) == measurement.shared.map { _ in measurement.formats.count } })
        else { throw TesseraError(.internal, "no statistics for this tensor", tensor: tensor.name) }
        return tasks
    }

    /// For each task, `Στ² / Σθ₀²` over the tensors that may be thinned, where they changed; over all tensors if none may be.
    private func relativeChanges(_ tensors: [StoreTensor], _ measured: [[GridErrors]]) -> [Double] {
        let encoded = zip(tensors, measured).filter(\.0.isEncoded),
            large = encoded.filter { $0.0.elementCount >= Self.leastThinned }
        let counted = (large.isEmpty ? encoded : large).map(\.1)
        return planner.tasks.indices.map { task in
            let energy = counted.reduce(0) { $0 + $1[task].energy }, base = counted.reduce(0) { $0 + ($1[task].base ?? 0) }
            return energy / max(base, energy, .leastNormalMagnitude)
        }
    }

    private func unit(
        _ tensor: StoreTensor, _ tasks: [GridErrors], weight: Double, _ changes: [Double]
    ) -> [BitBudget.Shared] {
        guard hasCommonMasks, tensor.isEncoded else {
            return measurement(tensor).shared.enumerated().map { index, shared in
                choice(of: tensor, tasks, shared: (index, shared), stride: nil, weight: weight, changes)
            }
        }
        return strides(tensor).map { choice(of: tensor, tasks, shared: (0, .zero), stride: $0, weight: weight, changes) }
    }

    /// - Parameter stride: the only one that the options may have.
    private func choice(
        of tensor: StoreTensor, _ tasks: [GridErrors], shared: (index: Int, format: StorageFormat), stride: Int?, weight: Double,
        _ changes: [Double]
    ) -> BitBudget.Shared {
        let options = options(tensor), bytes = options.map { $0.byteCount(shape: tensor.shape) }
        return BitBudget.Shared(
            bytes: tensor.isEncoded ? shared.format.byteCount(shape: tensor.shape) : 0,
            items: zip(tasks, changes).map { found, change in
                let energy = found.energy, least = energy > 0 ? floor * Double(tensor.elementCount) / 8 : 0
                return zip(options, bytes).map { format, bytes in
                    // What is not to be chosen while there is something else: what is below the floor or has another stride; and
                    // nothing at all, which would be no step along the task's vector.
                    let isOther = stride.map { format != .zero && format.stride != $0 } ?? false
                    let isBelow = Double(bytes) < least || isOther || thins && format == .zero && energy > 0
                    return BitBudget.Option(
                        bytes: bytes + (tensor.isEncoded && isBelow ? 1 << 50 : 0)
                            + (thins && bytes > Self.packLimit ? Self.descriptionBytes : 0),
                        loss: tensor.isEncoded
                            ? loss(format, of: tensor, found, shared: shared.index, weight: weight, relativeChange: change) : 0)
                }
            })
    }

    private func loss(
        _ format: StorageFormat, of tensor: StoreTensor, _ found: GridErrors, shared: Int, weight: Double, relativeChange: Double
    ) -> Double {
        guard found.energy > 0 else { return 0 }
        let error = error(format.keeping(oneOf: 1), measurement(tensor), found, shared: shared)
        guard thins else { return weight / sensitivity(found.energy) * error }
        let loss = PredictedLoss(format, error: error, energy: found.energy).loss(relativeChange: relativeChange)
        switch budget.sensitivity {
        case .balanced:
            return max(found.changed ?? Double(tensor.elementCount), Double(Self.leastCounted)) * relativeChange * loss
        case .relative: return loss
        case .absolute, .file: return weight * found.energy * loss
        }
    }

    /// The squared error that was measured, with every element kept.
    private func error(_ format: StorageFormat, _ measurement: GridMeasurement, _ found: GridErrors, shared: Int) -> Double {
        measurement.formats.firstIndex(of: format).map { found.errors[shared][$0] } ?? found.energy
    }

    /// What a squared error is divided by.
    private func sensitivity(_ energy: Double) -> Double {
        switch budget.sensitivity {
        // The power of 3/4, by operations that are the same everywhere.
        case .balanced: energy.squareRoot() * energy.squareRoot().squareRoot()
        case .relative: energy
        case .absolute, .file: 1
        }
    }

    private var floor: Double { budget.floor ?? (budget.sensitivity == .relative && !thins ? 1.5 : 0) }

    /// For each task, the share of its energy that will be lost.
    private func predictedErrors(
        _ choices: [BitBudget.Choice], _ tensors: [StoreTensor], _ measured: [[GridErrors]]
    ) -> [Double] {
        planner.tasks.indices.map { task in
            var error = 0.0, energy = 0.0
            for (number, tensor) in tensors.enumerated() {
                energy += measured[number][task].energy
                guard tensor.isEncoded else { continue }
                error += predicted(choices[number], tensor, measured[number], task).squaredError
            }
            return energy > 0 ? error / energy : 0
        }
    }

    /// For each tensor, the mean over the tasks that changed it.
    private func predictedLosses(
        _ choices: [BitBudget.Choice], _ tensors: [StoreTensor], _ measured: [[GridErrors]]
    ) -> [ExactText: Double] {
        let changes = relativeChanges(tensors, measured)
        let losses = tensors.indices.filter { tensors[$0].isEncoded }.map { number in
            let tasks = planner.tasks.indices.filter { measured[number][$0].energy > 0 }
            let sum = tasks.reduce(0) {
                $0 + predicted(choices[number], tensors[number], measured[number], $1).loss(relativeChange: changes[$1])
            }
            return (ExactText(tensors[number].name), sum / Double(max(1, tasks.count)))
        }
        return Dictionary(losses, uniquingKeysWith: { first, _ in first })
    }

    private func predicted(
        _ choice: BitBudget.Choice, _ tensor: StoreTensor, _ measured: [GridErrors], _ task: Int
    ) -> PredictedLoss {
        let format = options(tensor)[choice.options[task]], found = measured[task]
        let kept = error(format.keeping(oneOf: 1), measurement(tensor), found, shared: sharedFormat(choice))
        return PredictedLoss(format, error: kept, energy: found.energy)
    }

    // MARK: Weights

    /// What an error in a tensor counts besides its sensitivity: 1, or what a file says.
    private func weights() throws(TesseraError) -> (String) -> Double {
        guard case .file(let path) = budget.sensitivity else { return { _ in 1 } }
        let weights = try SensitivityWeights(
            file: try ModelLocator(planner.request).locate(.init(path: path)), in: planner.request.files)
        return { weights.weight(of: $0) }
    }
}
