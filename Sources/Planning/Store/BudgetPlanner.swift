import Core
import Recipes
import TaskVectors
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

    private static let sharedFormats: [StorageFormat] = [.zero] + (1...4).map { runs($0, 128) }

    /// What is measured of a tensor. A store that is extended has its shared vector already, or none for this tensor.
    private func measurement(_ tensor: StoreTensor) -> GridMeasurement {
        let isNew = isResidual && planner.extended == nil && planner.tasks.count > 1
        return GridMeasurement(
            shared: isNew ? Self.sharedFormats : [.zero],
            sharedIsFrozen: isResidual && planner.extended?.hasShared(tensor) == true,
            formats: Self.formats)
    }

    func plan() throws -> Plan {
        let weights = try weights()
        guard let statistics = planner.statistics.first else {
            return try planner.analysisStage("budget") { .measureGrids(measurement($0)) }
        }
        return try plan(after: statistics, weights: weights)
    }

    // MARK: Granularity out

    private func plan(after statistics: [ExactText: TensorStatistics], weights: (String) -> Double) throws -> Plan {
        let tensors = planner.tensors.filter(\.isArithmetic)
        let budget = BitBudget(
            units: try tensors.map { tensor in try unit(tensor, statistics[ExactText(tensor.name)], weight: weights(tensor.name))
            },
            budget: byteBudget(tensors))
        let (choices, least) = budget.solve()
        guard let choices else {
            throw TesseraError(
                .badData,
                "the budget of \(budget.budget) bytes is too small; the smallest formats need \(least) bytes",
                file: planner.recipe.file, line: self.budget.line, advice: "raise the budget or lower the floor")
        }
        let byName = Dictionary(uniqueKeysWithValues: zip(tensors.map { ExactText($0.name) }, choices))
        return try planner.write(
            { tensor in
                guard let choice = byName[ExactText(tensor.name)] else { return planner.raw(tensor) }
                guard tensor.isEncoded else { return planner.raw(tensor) }
                let measurement = measurement(tensor)
                let shared = measurement.shared[choice.shared], isFrozen = measurement.sharedIsFrozen
                return .quantize(
                    Quantizer(
                        shared: isFrozen ? .zero : shared == .zero ? nil : shared,
                        sharedIsFrozen: isFrozen,
                        tasks: choice.options.map { options(tensor)[$0] }))
            }, predicted: predictedErrors(choices, tensors, statistics))
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
        tensor.isEncoded ? Self.formats + [.zero] : [.dense(.raw(planner.recipe.rest))]
    }

    private func unit(
        _ tensor: StoreTensor, _ found: TensorStatistics?, weight: Double
    ) throws(TesseraError) -> [BitBudget.Shared] {
        let measurement = measurement(tensor)
        guard case .encoding(.grids(let tasks)) = found, tasks.count == planner.tasks.count,
            tasks.allSatisfy({ $0.errors.map(\.count) == measurement.shared.map { _ in Self.formats.count } })
        else { throw TesseraError(.internal, "no statistics for this tensor", tensor: tensor.name) }
        let options = options(tensor), shape = tensor.shape
        return measurement.shared.enumerated().map { index, shared in
            BitBudget.Shared(
                bytes: tensor.isEncoded ? shared.byteCount(shape: shape) : 0,
                items: tasks.map { found in
                    let energy = found.energy, scale = energy > 0 ? weight / sensitivity(energy) : 0
                    let errors = found.errors[index]
                    let least = energy > 0 ? floor * Double(tensor.elementCount) / 8 : 0
                    return options.enumerated().map { position, format in
                        let bytes = format.byteCount(shape: shape)
                        let error =
                            tensor.isEncoded ? (position < errors.count ? errors[position] : energy) : 0
                        // Below the floor nothing is chosen while there is something else.
                        let isBelow = tensor.isEncoded && Double(bytes) < least
                        return BitBudget.Option(bytes: isBelow ? bytes + (1 << 50) : bytes, loss: scale * error)
                    }
                })
        }
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

    private var floor: Double { budget.floor ?? (budget.sensitivity == .relative ? 1.5 : 0) }

    /// For each task, the share of its energy that will be lost.
    private func predictedErrors(
        _ choices: [BitBudget.Choice], _ tensors: [StoreTensor], _ statistics: [ExactText: TensorStatistics]
    ) -> [Double] {
        planner.tasks.indices.map { task in
            var error = 0.0, energy = 0.0
            for (tensor, choice) in zip(tensors, choices) {
                guard case .encoding(.grids(let tasks)) = statistics[ExactText(tensor.name)] else { continue }
                energy += tasks[task].energy
                let option = choice.options[task]
                guard tensor.isEncoded else { continue }
                error += option < Self.formats.count ? tasks[task].errors[choice.shared][option] : tasks[task].energy
            }
            return energy > 0 ? error / energy : 0
        }
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
