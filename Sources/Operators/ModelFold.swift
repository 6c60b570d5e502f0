package import Core
import TensorKernels

/// One round of statistics over whole models: says stage by stage what to measure, and folds what the tensors report.
///
/// Everything is added up in the order of the tensors, so that the result does not depend on who measured what when.
package struct ModelFold {
    /// A tensor of which the round measures something.
    package struct Part {
        package let name: String
        package let shape: [Int]
        /// The number of the model that each source belongs to.
        package let models: [Int]
        /// The source that is the base, of which nothing is counted.
        package let base: Int?
        package let statistics: [ModelStatistic]

        package init(name: String, shape: [Int], models: [Int], base: Int?, statistics: [ModelStatistic]) {
            self.name = name
            self.shape = shape
            self.models = models
            self.base = base
            self.statistics = statistics
        }
    }

    /// The search for the magnitude of a rank.
    private struct Search {
        var prefix: UInt32 = 0
        /// Among the magnitudes with the prefix.
        var rank = 0
        var count = 0
    }

    private let round: Int
    private let parts: [Part]
    /// The bits that each of the remaining stages finds.
    private var widths: ArraySlice<Int>
    private var known = 0
    /// By the statistic's name and the model.
    private var searches: [String: [Int: Search]] = [:]
    /// The folded numbers, by the statistic's name and the model. Complete once there is no next stage.
    package private(set) var numbers: [String: [Int: Double]] = [:]

    package init(round: Int, _ parts: [Part]) {
        self.round = round
        self.parts = parts
        let most = parts.map { $0.models.count * $0.statistics.count { $0.rank != nil } }.max() ?? 0
        widths = ModelStage.widths(histograms: most)[...]
    }

    /// What to measure next of a tensor; `nil` when all is known.
    package func stage(of part: Part) -> ModelStage? {
        guard let width = widths.first else { return nil }
        var prefixes: [String: [UInt32?]] = [:]
        for statistic in part.statistics where statistic.rank != nil {
            prefixes[statistic.name] = part.models.enumerated().map { source, model in
                source == part.base ? nil : known == 0 ? 0 : searches[statistic.name]?[model]?.prefix
            }
        }
        return ModelStage(round: round, known: known, width: width, prefixes: prefixes)
    }

    /// Takes the results of a stage.
    ///
    /// - Parameter reported: of a tensor, by its name.
    /// - Throws: `internal` for results that cannot be of that stage, `badData` where inputs have changed in between, where ranks
    ///   of tensors contradict each other, and for results that are not finite.
    package mutating func fold(_ reported: (String) -> MergeStatistics?) throws(TesseraError) {
        guard let width = widths.popFirst() else { return }
        var totals: [String: [Int: [UInt32: Int]]] = [:]
        for part in parts {
            let found = reported(part.name)
            for statistic in part.statistics {
                if statistic.rank != nil {
                    try add(found?.counts[statistic.name], of: part, to: &totals[statistic.name, default: [:]])
                } else if known == 0 {
                    try fold(found?.numbers[statistic.name], statistic, of: part)
                }
            }
        }
        if known == 0 {
            for (name, models) in totals {
                searches[name] = models.mapValues { Search(count: $0.values.reduce(0, +)) }
            }
            try findRanks()
        }
        for (name, models) in totals {
            for (model, counts) in models { try narrow(name, model, by: counts, width) }
        }
        known += width
        guard widths.isEmpty else { return }
        for (name, models) in searches {
            for (model, search) in models {
                let number = Float(bitPattern: search.prefix)
                guard search.count == 0 || number.isFinite else {
                    throw TesseraError(
                        .badData, "a magnitude of the whole model, on which the method depends, is infinite or not a number",
                        advice: "look for values that are infinite or not a number in the models")
                }
                numbers[name, default: [:]][model] = Double(number)
            }
        }
    }

    private mutating func fold(_ found: [Double]?, _ statistic: ModelStatistic, of part: Part) throws(TesseraError) {
        let isSum = if case .sum = statistic.fold { true } else { false }
        guard let found, found.count == part.models.count, found.allSatisfy({ $0.isFinite && ($0 >= 0 || !isSum) }) else {
            throw impossible(statistic.name, part)
        }
        for (model, number) in zip(part.models, found) {
            let former = numbers[statistic.name]?[model]
            numbers[statistic.name, default: [:]][model] =
                isSum ? (former ?? 0) + number : former.map { max($0, number) } ?? number
        }
    }

    private func add(
        _ found: [MagnitudeCounts]?, of part: Part, to totals: inout [Int: [UInt32: Int]]
    ) throws(TesseraError) {
        let elements = Shape.count(part.shape)
        guard let found, found.count == part.models.count, found.allSatisfy({ $0.fit(elements) }) else {
            throw impossible("counts", part)
        }
        for (model, counts) in zip(part.models, found) { counts.add(to: &totals[model, default: [:]]) }
    }

    /// The rank that every tensor asks for must be the same.
    private mutating func findRanks() throws(TesseraError) {
        for part in parts {
            for statistic in part.statistics {
                guard let rank = statistic.rank else { continue }
                for (source, model) in part.models.enumerated() {
                    guard let search = searches[statistic.name]?[model], search.count > 0 else { continue }
                    let wanted = max(1, min(search.count, rank(source, search.count)))
                    guard search.rank == 0 || search.rank == wanted else {
                        throw TesseraError(
                            .badData, "asks for another share of the whole model than other tensors do", tensor: part.name,
                            advice: "give all tensors the same value of the parameter, without filters and gradients")
                    }
                    searches[statistic.name]?[model]?.rank = wanted
                }
            }
        }
    }

    private mutating func narrow(
        _ name: String, _ model: Int, by counts: [UInt32: Int], _ width: Int
    ) throws(TesseraError) {
        guard var search = searches[name]?[model], search.rank > 0 else { return }
        guard counts.values.reduce(0, +) == search.count, let place = counts.place(ofLargest: search.rank),
            place.bin < 1 << UInt32(width)
        else {
            throw TesseraError(
                .badData, "the inputs changed while they were being measured",
                advice: "make sure that nothing writes to the inputs during a merge")
        }
        search.prefix = search.prefix << UInt32(width) | place.bin
        search.rank -= place.above
        search.count = place.inside
        searches[name]?[model] = search
    }

    private func impossible(_ what: String, _ part: Part) -> TesseraError {
        TesseraError(.internal, "the analysis stage has no '\(what)' for this tensor", tensor: part.name)
    }
}
