package import Core
import TensorKernels

/// One round of statistics over whole models or their layers: says stage by stage what to measure, and folds what the tensors
/// report.
///
/// Everything is added up in the order of the tensors, so that the result does not depend on who measured what when.
package struct ModelFold {
    /// A layer of a stack, such as `model.layers`.
    package struct Layer: Hashable {
        package let stack: ExactText
        package let index: Int

        package init(stack: ExactText, index: Int) {
            self.stack = stack
            self.index = index
        }
    }

    /// A tensor of which the round measures something.
    package struct Part {
        package let name: String
        package let shape: [Int]
        /// The number of the model that each source belongs to.
        package let models: [Int]
        /// The source that is the base, of which nothing is counted.
        package let base: Int?
        /// `nil` outside the layers.
        package let layer: Layer?
        package let statistics: [ModelStatistic]

        package init(
            name: String, shape: [Int], models: [Int], base: Int?, layer: Layer? = nil, statistics: [ModelStatistic]
        ) {
            self.layer = layer
            self.name = name
            self.shape = shape
            self.models = models
            self.base = base
            self.statistics = statistics
        }
    }

    /// What a number is about.
    private struct Subject: Hashable {
        let model: Int
        /// `nil` for the model as a whole.
        let layer: Layer?
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
    private let stacks: [ExactText: [Layer]]
    /// The bits that each of the remaining stages finds.
    private var widths: ArraySlice<Int>
    private var known = 0
    /// By the statistic's name.
    private var searches: [String: [Subject: Search]] = [:]
    /// The folded numbers, by the statistic's name.
    private var numbers: [String: [Subject: Double]] = [:]

    package init(round: Int, _ parts: [Part]) {
        self.round = round
        self.parts = parts
        stacks = Dictionary(grouping: Set(parts.compactMap(\.layer)), by: \.stack).mapValues {
            $0.sorted { $0.index < $1.index }
        }
        let most = parts.map { $0.models.count * $0.statistics.count { $0.rank != nil } }.max() ?? 0
        widths = ModelStage.widths(histograms: most)[...]
    }

    private static func subject(_ statistic: ModelStatistic, _ model: Int, _ part: Part) -> Subject {
        Subject(model: model, layer: statistic.scope == .layers ? part.layer : nil)
    }

    /// What the round found, for each source of a tensor, by the statistic's name. Complete once there is no next stage.
    package func values(of part: Part) -> [[String: ParameterValue]] {
        var values: [[String: ParameterValue]] = Array(repeating: [:], count: part.models.count)
        for statistic in part.statistics {
            let found = numbers[statistic.name] ?? [:], layers = statistic.scope == .layers ? layers(besides: part) : []
            for (source, model) in part.models.enumerated() {
                values[source][statistic.name] =
                    statistic.scope == .layers
                    ? .numbers(layers.map { found[Subject(model: model, layer: $0)] ?? 0 })
                    : found[Subject(model: model, layer: nil)].map { .number($0) }
            }
        }
        return values
    }

    /// The place of the tensor's layer among those of its stack that are measured; `nil` outside the layers.
    package func place(of part: Part) -> Int? {
        part.layer.flatMap { own in layers(besides: part).firstIndex(of: own) }
    }

    /// The layers of the tensor's stack that are measured, in their order.
    private func layers(besides part: Part) -> [Layer] { part.layer.flatMap { stacks[$0.stack] } ?? [] }

    /// What to measure next of a tensor; `nil` when all is known.
    package func stage(of part: Part) -> ModelStage? {
        guard let width = widths.first else { return nil }
        var prefixes: [String: [UInt32?]] = [:]
        for statistic in part.statistics where statistic.rank != nil {
            prefixes[statistic.name] = part.models.enumerated().map { source, model in
                source == part.base
                    ? nil : known == 0 ? 0 : searches[statistic.name]?[Self.subject(statistic, model, part)]?.prefix
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
        var totals: [String: [Subject: [UInt32: Int]]] = [:]
        for part in parts {
            let found = reported(part.name)
            for statistic in part.statistics {
                if statistic.rank != nil {
                    try add(found?.counts[statistic.name], statistic, of: part, to: &totals[statistic.name, default: [:]])
                } else if known == 0 {
                    try fold(found?.numbers[statistic.name], statistic, of: part)
                }
            }
        }
        if known == 0 {
            for (name, subjects) in totals {
                searches[name] = subjects.mapValues { Search(count: $0.values.reduce(0, +)) }
            }
            try findRanks()
        }
        for (name, subjects) in totals {
            for (subject, counts) in subjects { try narrow(name, subject, by: counts, width) }
        }
        known += width
        guard widths.isEmpty else { return }
        for (name, subjects) in searches {
            for (subject, search) in subjects {
                let number = Float(bitPattern: search.prefix)
                guard search.count == 0 || number.isFinite else {
                    throw TesseraError(
                        .badData, "a magnitude of the whole model, on which the method depends, is infinite or not a number",
                        advice: "look for values that are infinite or not a number in the models")
                }
                numbers[name, default: [:]][subject] = Double(number)
            }
        }
    }

    private mutating func fold(_ found: [Double]?, _ statistic: ModelStatistic, of part: Part) throws(TesseraError) {
        let isSum = if case .sum = statistic.fold { true } else { false }
        guard let found, found.count == part.models.count, found.allSatisfy({ $0.isFinite && ($0 >= 0 || !isSum) }) else {
            throw impossible(statistic.name, part)
        }
        for (model, number) in zip(part.models, found) {
            let subject = Self.subject(statistic, model, part), former = numbers[statistic.name]?[subject]
            numbers[statistic.name, default: [:]][subject] =
                isSum ? (former ?? 0) + number : former.map { max($0, number) } ?? number
        }
    }

    private func add(
        _ found: [MagnitudeCounts]?, _ statistic: ModelStatistic, of part: Part, to totals: inout [Subject: [UInt32: Int]]
    ) throws(TesseraError) {
        let elements = Shape.count(part.shape)
        guard let found, found.count == part.models.count, found.allSatisfy({ $0.fit(elements) }) else {
            throw impossible("counts", part)
        }
        for (model, counts) in zip(part.models, found) {
            counts.add(to: &totals[Self.subject(statistic, model, part), default: [:]])
        }
    }

    /// The rank that every tensor asks for must be the same.
    private mutating func findRanks() throws(TesseraError) {
        for part in parts {
            for statistic in part.statistics {
                guard let rank = statistic.rank else { continue }
                for (source, model) in part.models.enumerated() {
                    let subject = Self.subject(statistic, model, part)
                    guard let search = searches[statistic.name]?[subject], search.count > 0 else { continue }
                    let wanted = max(1, min(search.count, rank(source, search.count)))
                    guard search.rank == 0 || search.rank == wanted else {
                        throw TesseraError(
                            .badData, "asks for another share of the whole model than other tensors do", tensor: part.name,
                            advice: "give all tensors the same value of the parameter, without filters and gradients")
                    }
                    searches[statistic.name]?[subject]?.rank = wanted
                }
            }
        }
    }

    private mutating func narrow(
        _ name: String, _ subject: Subject, by counts: [UInt32: Int], _ width: Int
    ) throws(TesseraError) {
        guard var search = searches[name]?[subject], search.rank > 0 else { return }
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
        searches[name]?[subject] = search
    }

    private func impossible(_ what: String, _ part: Part) -> TesseraError {
        TesseraError(.internal, "the analysis stage has no '\(what)' for this tensor", tensor: part.name)
    }
}
