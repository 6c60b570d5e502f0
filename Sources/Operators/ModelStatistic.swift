import Core
package import TensorKernels

/// A number about each model as a whole that a method needs before it merges (`MergeMethod.modelRounds`).
package struct ModelStatistic: Sendable {
    package enum Fold: Sendable {
        /// Of the numbers that the method reports for each tensor: their sum, in the order of the output's tensors, or the
        /// largest. Numbers that are added up are not negative.
        case sum, greatest
        /// Of all float32 magnitudes that the method counts: the one of a rank. The largest has rank 1.
        case magnitude(Rank)
    }

    /// The rank for a source of the tensor, by the number of magnitudes in the model. It is brought into `1...count`.
    package typealias Rank = @Sendable (_ source: Int, _ count: Int) -> Int

    package enum Scope: Sendable, Hashable {
        /// All tensors that are measured: a number for each source.
        case model
        /// The tensors of each layer: for each source a number for every layer of the tensor's stack that is measured, in the
        /// order of the layers. A method with such statistics measures no tensor outside the layers.
        case layers
    }

    /// The name of the value that the method gets for each source.
    package let name: String
    package let fold: Fold
    package let scope: Scope

    package init(_ name: String, _ fold: Fold, over scope: Scope = .model) {
        self.name = name
        self.fold = fold
        self.scope = scope
    }

    /// The value that says which of the numbers of a stack's layers are those of the tensor's own layer; −1 outside the layers.
    /// Methods with statistics of layers get it beside those.
    package static let ownLayer = "layer"

    var rank: Rank? { if case .magnitude(let rank) = fold { rank } else { nil } }
}

/// One pass over the model, in which numbers of a round are found.
///
/// Sums and extremes take one stage. Magnitudes of a rank take several: each counts by the next few of the 31 bits, those
/// magnitudes that begin with the bits known so far.
package struct ModelStage: Sendable, Hashable, Codable {
    package let round: Int
    /// The number of leading bits known.
    package let known: Int
    /// The number of bits that the stage finds; 0 if it counts nothing.
    package let width: Int
    /// By the statistic's name and source: the bits known; `nil` for a source without magnitudes.
    package let prefixes: [String: [UInt32?]]

    package init(round: Int, known: Int = 0, width: Int = 0, prefixes: [String: [UInt32?]] = [:]) {
        self.round = round
        self.known = known
        self.width = width
        self.prefixes = prefixes
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        round = try container.decodeInteger(in: 0...Int(Int32.max), forKey: .round)
        known = try container.decodeInteger(in: 0...MagnitudeHistogram.bitCount - 1, forKey: .known)
        width = try container.decodeInteger(
            in: 0...min(MagnitudeHistogram.lowBitCount, MagnitudeHistogram.bitCount - known), forKey: .width)
        prefixes = try container.decode([String: [UInt32?]].self, forKey: .prefixes)
    }

    /// The number of histograms of a tensor.
    package var histogramCount: Int { prefixes.values.reduce(0) { $0 + $1.count { $0 != nil } } }

    /// The bits that each stage finds, for so many histograms of a tensor. More of them take more stages, so that what a worker
    /// says of one tensor stays within a message.
    static func widths(histograms: Int) -> [Int] {
        switch histograms {
        case 0: [0]
        case ...6: [15, 16]
        case ...12: [15, 8, 8]
        default: [8, 7, 8, 8]
        }
    }
}

/// Histograms of what a method counts in a tensor, by the statistic's name and source.
package struct MagnitudeCounters: Sendable {
    private let stage: ModelStage
    private var histograms: [String: [MagnitudeHistogram?]]

    init(_ stage: ModelStage) {
        self.stage = stage
        histograms = stage.prefixes.mapValues { prefixes in
            prefixes.map { prefix in
                guard let prefix else { return nil }
                let fine = stage.known - MagnitudeHistogram.highBitCount
                return fine < 0 ? .coarse() : .fine(inBin: prefix >> UInt32(fine))
            }
        }
    }

    var byteCount: Int { stage.histogramCount * MagnitudeHistogram.byteCount }

    /// Counts the magnitudes of a source for one statistic.
    package mutating func add(
        _ x: UnsafePointer<Float>, count: Int, to name: String, of source: Int, kernels: Kernels
    ) {
        guard var own = histograms[name], own.indices.contains(source) else { return }
        histograms[name] = nil
        own[source]?.add(x, count: count, kernels: kernels)
        histograms[name] = own
    }

    mutating func add(_ other: MagnitudeCounters) {
        for (name, parts) in other.histograms {
            guard var own = histograms[name] else { continue }
            histograms[name] = nil
            for (source, part) in parts.enumerated() {
                if let part { own[source]?.add(part) }
            }
            histograms[name] = own
        }
    }

    /// The counts by the bits that the stage finds.
    var counts: [String: [MagnitudeCounts]] {
        histograms.reduce(into: [:]) { counts, own in
            let prefixes = stage.prefixes[own.key] ?? []
            counts[own.key] = zip(own.value, prefixes).map { histogram, prefix in
                guard let histogram, let prefix else { return MagnitudeCounts([]) }
                return digits(histogram, prefix)
            }
        }
    }

    /// Adds up the bins of those that begin with the known bits, by the next ones.
    private func digits(_ histogram: MagnitudeHistogram, _ prefix: UInt32) -> MagnitudeCounts {
        let high = MagnitudeHistogram.highBitCount, isFine = stage.known >= high
        let bits = isFine ? MagnitudeHistogram.lowBitCount : high, known = isFine ? stage.known - high : stage.known
        let rest = UInt32(bits - known), dropped = UInt32(max(0, bits - known - stage.width))
        let own = isFine ? prefix & (1 << UInt32(known) - 1) : prefix
        var totals: [UInt32: Int] = [:]
        for entry in histogram.occupied where entry.bin >> rest == own {
            totals[(entry.bin & (1 << rest - 1)) >> dropped, default: 0] += entry.count
        }
        return MagnitudeCounts(totals.sorted { $0.key < $1.key }.map { MagnitudeCount(bin: $0.key, count: $0.value) })
    }
}

extension MergeMethod {
    /// Finds what a stage asks for, and reports it.
    ///
    /// - Throws: `badData` for a round that the method does not have; errors of the method.
    package func measure(_ stage: ModelStage, in tensor: TensorPasses) throws {
        let rounds = modelRounds(of: tensor.shape)
        guard rounds.indices.contains(stage.round),
            stage.prefixes.values.allSatisfy({ $0.count == tensor.sources.count })
        else { throw TesseraError(.badData, "the method '\(Self.name)' has no such round of measurements") }
        if stage.known == 0, rounds[stage.round].contains(where: { $0.rank == nil }) { try measure(round: stage.round, tensor) }
        guard stage.width > 0 else { return }
        guard tensor.count <= MagnitudeHistogram.countLimit else { throw OrderStatistics.tooMany(tensor.count) }
        let names = rounds[stage.round].filter { $0.rank != nil }.map(\.name)
        tensor.report(try count(names, of: tensor, in: MagnitudeCounters(stage)).counts)
    }

    /// Whether the numbers and counts can be what `measure` reports: for each statistic of the round one entry per source, sums
    /// that are not negative, and no more counts than the tensor has elements.
    package func canReport(_ found: MergeStatistics, measuring stage: ModelStage, shape: [Int], sources: Int) -> Bool {
        let rounds = modelRounds(of: shape), elements = Shape.count(shape)
        guard rounds.indices.contains(stage.round) else { return false }
        let numbersFit = rounds[stage.round].lazy.filter { $0.rank == nil && stage.known == 0 }.allSatisfy { statistic in
            let isSum = if case .sum = statistic.fold { true } else { false }
            guard let numbers = found.numbers[statistic.name], numbers.count == sources else { return false }
            return numbers.allSatisfy { $0.isFinite && ($0 >= 0 || !isSum) }
        }
        let countsFit = stage.prefixes.allSatisfy { name, prefixes in
            guard let counts = found.counts[name], counts.count == prefixes.count else { return false }
            return zip(counts, prefixes).allSatisfy { counts, prefix in
                counts.fit(prefix == nil ? 0 : elements, bins: 1 << stage.width)
            }
        }
        return numbersFit && countsFit
    }

    /// What a stage needs for a tensor of the given shape.
    package func cost(of shape: [Int], measuring stage: ModelStage) -> OperatorCost {
        measuringCost(of: shape, round: stage.round).adding(
            memory: MemoryNeed(shared: stage.histogramCount * MagnitudeHistogram.byteCount))
    }

    /// Counts what `entries` gives for each tile.
    package func count(_ names: [String], of tensor: TensorPasses, in counters: MagnitudeCounters) throws -> MagnitudeCounters {
        try tensor.fold(counters, partBytes: counters.byteCount, isLast: true) { counters, tile in
            for source in tensor.inputs.models {
                for name in names {
                    let values = try entries(of: name, source, tile)
                    counters.add(values, count: tile.count, to: name, of: source, kernels: tile.kernels)
                }
            }
        } combine: { total, part in
            total.add(part)
        }
    }
}

extension ParameterValues {
    /// A statistic of the layers of the tensor's stack for one source, and which of the layers is the tensor's own; `nil` as long
    /// as it has not been measured. Outside the layers, there is no own layer.
    func layers(_ name: String, ofInput index: Int) throws(TesseraError) -> (numbers: [Double], own: Int?)? {
        guard let own = optionalNumber(ModelStatistic.ownLayer) else { return nil }
        guard own >= 0 else { return ([], nil) }
        guard let numbers = try optionalNumbers(name, ofInput: index) else { return nil }
        guard let place = Int(exactly: own), numbers.indices.contains(place) else {
            throw TesseraError(.badData, "the plan has \(numbers.count) layers for '\(name)', and none with the number \(own)")
        }
        return (numbers, place)
    }

    /// A statistic of each of the sources; `nil` as long as it has not been measured.
    func statistics(_ name: String, of sources: [Int]) throws(TesseraError) -> [Double]? {
        var found: [Double] = []
        for source in sources {
            guard let number = try optionalNumber(name, ofInput: source) else { return nil }
            found.append(number)
        }
        return found
    }
}

extension TesseraError {
    /// For a plan that merges before it has measured.
    static var notMeasured: TesseraError { TesseraError(.badData, "the plan lacks what the method measures before it merges") }
}
