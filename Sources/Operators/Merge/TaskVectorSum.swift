import Core
import TensorKernels

/// Decides which entries of task vectors are kept: those whose magnitude lies in a band and that are flagged.
protocol Sparsifier: Sendable {
    /// The band of magnitudes that are kept of the `index`-th model's task vector from flat index `start` on, and the index up to
    /// which it holds.
    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int)

    /// Whether `flag` is needed for the `index`-th model.
    func isFlagging(_ index: Int) -> Bool

    /// Flags each entry of the tile: 1 to keep it, else 0. Gives the same flags each time.
    func flag(_ index: Int, _ flags: UnsafeMutablePointer<UInt8>, of tile: Tile) throws
}

extension Sparsifier {
    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int) { (.all, .max) }
    func isFlagging(_ index: Int) -> Bool { false }
    func flag(_ index: Int, _ flags: UnsafeMutablePointer<UInt8>, of tile: Tile) {}
}

/// Drops nothing.
struct KeepAll: Sparsifier {}

/// A method that keeps some entries of each task vector of a tensor, and then combines what is left.
protocol SparseSum: MergeMethod {
    var vectors: TaskVectorSum { get }
    static var combination: TaskVectorSum.Combination { get }

    /// May read the tensor.
    func sparsifier(in tensor: TensorPasses) throws -> any Sparsifier
    /// The update without the scale.
    func update(_ tensor: TensorPasses) throws -> TileValues
}

extension SparseSum {
    /// The method with weights and densities of its own for the models, and all else by default, but that nothing is divided by
    /// the sum of the weights: they are coefficients.
    ///
    /// - Throws: as the initializer.
    static func with(
        weights: [Double], densities: [Double], lambdas: [Double] = [1], inputs: TensorInputs
    ) throws(TesseraError) -> Self {
        var values = ParameterValues(perInput: Array(repeating: [:], count: inputs.count))
        for parameter in parameters where parameter.scope == .shared { values.shared[parameter.name] = parameter.defaultValue }
        values.shared.merge([TaskVectorSum.scale: .numbers(lambdas), "normalize": .flag(false)]) { $1 }
        for (index, model) in inputs.models.enumerated() {
            values.perInput[model] = ["weight": .number(weights[index]), "density": .number(densities[index])]
        }
        return try Self(values, inputs: inputs)
    }

    /// `‖d‖²` of what is kept of each model's task vector, rescaled; 0 for other sources.
    func squaredNorms(_ tensor: TensorPasses) throws -> [Double] {
        try vectors.squaredNorms(tensor, sparsifier(in: tensor))
    }

    func update(_ tensor: TensorPasses) throws -> TileValues {
        try vectors.update(tensor, sparsifier(in: tensor), by: Self.combination)
    }
}

/// What all methods on task vectors have in common: parameters, and combining the sparsified vectors.
///
/// With `dᵢ = xᵢ − b` after the method's own sparsifying, `eᵢ = wᵢdᵢ`, and `M` their combination, the result is `b + λ·M`:
/// - by sum (task arithmetic, arXiv 2212.04089): `M = Σ eᵢ`, divided by `Σ wᵢ` when `normalize` is set and that is not about
///   zero;
/// - by consensus (TIES, arXiv 2306.01708): the elected sign is that of `Σ eᵢ`, zero counting as plus; `M = Σ eᵢ` over the
///   models whose entry has it, divided by their `Σ wᵢ` when `normalize` is set.
///
/// With `rescale`, `dᵢ` is multiplied by `Σ|d| / Σ|kept d|` over the tensor.
struct TaskVectorSum: Sendable {
    enum Combination: Sendable {
        case sum, consensus
    }

    let base: Int
    let models: [Int]
    let weights: [Float]
    let densities: [Double]
    private let normalize: Bool
    let rescale: Bool
    /// One for each output.
    private let lambdas: [Float]

    static let scale = "lambda"

    static func parameters(normalize: Bool, rescale: Bool) -> [Parameter] {
        [
            .required("weight", .perModel, "Scales this model's task vector."),
            .number("density", .perModel, default: 1, in: 0...1, "Share of the task vector's entries that are kept."),
            .flag("normalize", default: normalize, "Divide by the sum of the weights that take part."),
            .flag("rescale", default: rescale, "Scale what is kept so that the sum of magnitudes stays as it was."),
            .number(scale, .shared, default: 1, "Scales the merged task vector."),
            .flag("int8_mask", default: false, "Accepted for mergekit's sake; it never had an effect on the result."),
        ]
    }

    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        weights = try models.map { (model) throws(TesseraError) in Float(try values.number("weight", ofInput: model)) }
        densities = try models.map { (model) throws(TesseraError) in try values.number("density", ofInput: model) }
        normalize = try values.flag("normalize")
        rescale = try values.flag("rescale")
        lambdas = try values.numbers(Self.scale).map { Float($0) }
    }

    /// A plain sum of whole task vectors.
    init(base: Int, models: [Int], weights: [Float], lambdas: [Float]) {
        self.base = base
        self.models = models
        self.weights = weights
        densities = models.map { _ in 1 }
        normalize = false
        rescale = false
        self.lambdas = lambdas
    }

    /// Whether anything is dropped at all.
    var isSparse: Bool { densities.contains { $0 < 1 } }

    /// Passes of `merge`, without the sparsifier's own.
    var passes: Int { isSparse && rescale ? 2 : 1 }

    /// Bytes of a tile's flags.
    var flagBytes: Int { (models.count + 1) * FixedTree.tileElements }

    /// The cost of `merge` with a sparsifier that flags and has no passes of its own.
    var cost: OperatorCost { OperatorCost(passes: passes, memory: MemoryNeed(perThread: isSparse ? flagBytes : 0)) }

    /// - Parameter zeroIsMinus: of a consensus: the sign that is elected where the sum is zero.
    func merge(
        _ tensor: TensorPasses, _ sparsifier: any Sparsifier = KeepAll(), by combination: Combination, zeroIsMinus: Bool = false
    ) throws {
        let sign = sign(zeroIsMinus)
        let merged = try values(
            tensor, sparsifier, combination, zeroIsMinus, lambda: lambdas.count == 1 ? lambdas[0] * sign : nil)
        guard lambdas.count > 1 else { return try tensor.emit(merged) }
        try tensor.emit(lambdas.count, merged: merged) { tile, output, out in
            try tile.addBase(base, to: out, scaledBy: lambdas[output] * sign)
        }
    }

    /// `M`.
    func update(
        _ tensor: TensorPasses, _ sparsifier: any Sparsifier, by combination: Combination, zeroIsMinus: Bool = false
    ) throws -> TileValues {
        let sign = sign(zeroIsMinus)
        let merged = try values(tensor, sparsifier, combination, zeroIsMinus, lambda: nil)
        return { tile, out in
            try merged(tile, out)
            if sign < 0 { tile.kernels.scale(out, by: sign, into: out, count: tile.count) }
        }
    }

    /// The kernel elects plus where the sum is zero. With all vectors negated that is minus, and nothing else changes.
    private func sign(_ zeroIsMinus: Bool) -> Float { zeroIsMinus ? -1 : 1 }

    /// - Parameter lambda: `nil` for `M` alone, times the sign of the vectors.
    private func values(
        _ tensor: TensorPasses, _ sparsifier: any Sparsifier, _ combination: Combination, _ zeroIsMinus: Bool, lambda: Float?
    ) throws -> TileValues {
        let notes = isSparse && rescale ? FlagNotes(models: models.count, elements: tensor.count, memory: tensor.memory) : nil
        let factors =
            try notes.map { try rescalingFactors(sparsifier, noting: $0, in: tensor) }
            ?? Array(repeating: 1, count: models.count)
        let total = weights.reduce(0, +), sign = sign(zeroIsMinus)
        let divisor: Float? = normalize && abs(total) >= 1e-8 ? total : nil
        let merge = Kernels.TaskVectorMerge(
            weights: weights, factors: factors.map { $0 * sign }, isConsensus: combination == .consensus, normalize: normalize,
            divisor: divisor ?? 1, lambda: lambda)
        return { tile, out in
            let vectors = try models.indices.map { index in
                try taskVector(index, of: tile, sparsifier.isFlagging(index)) { flags in
                    if notes?.recall(index, flags, of: tile) != true { try sparsifier.flag(index, flags, of: tile) }
                }
            }
            let base = try tile.stored(base)
            segments(of: tile, models.indices, sparsifier) { range, bands in
                merge.apply(range, of: vectors, base: base, bands: bands, into: out, kernels: tile.kernels)
            }
        }
    }

    /// How many entries of the tensor elect plus, and how many minus. Those whose sum is zero elect neither.
    func votes(_ tensor: TensorPasses, _ sparsifier: any Sparsifier) throws -> (plus: Int, minus: Int) {
        let notes = FlagNotes(models: 0, elements: 0, memory: tensor.memory)
        let factors = isSparse && rescale ? try rescalingFactors(sparsifier, noting: notes, in: tensor) : nil
        let counts = try tensor.counts(2, isLast: true) { tile, counts in
            var sums = [Float](repeating: 0, count: tile.count)
            for (index, model) in models.enumerated() {
                let vector = try tile.taskVector(model), factor = factors?[index] ?? 1, weight = weights[index]
                segments(of: tile, index..<index + 1, sparsifier) { range, bands in
                    for place in range where bands[0].contains(vector[place]) { sums[place] += vector[place] * factor * weight }
                }
            }
            counts = sums.reduce(into: [0, 0]) { counts, sum in
                counts[0] += sum > 0 ? 1 : 0
                counts[1] += sum < 0 ? 1 : 0
            }
        }
        return (counts[0].reduce(0, +), counts[1].reduce(0, +))
    }

    /// `‖d‖²` of what is kept of each model's task vector, rescaled; 0 for other sources.
    func squaredNorms(_ tensor: TensorPasses, _ sparsifier: any Sparsifier) throws -> [Double] {
        let notes = FlagNotes(models: 0, elements: 0, memory: tensor.memory)
        let factors = isSparse && rescale ? try rescalingFactors(sparsifier, noting: notes, in: tensor) : nil
        let norms = try tensor.sums(models.count, isLast: true) { tile, sums in
            for (index, model) in models.enumerated() {
                let vector = try tile.taskVector(model), flags = sparsifier.isFlagging(index) ? tile.flags(model) : nil
                if let flags { try sparsifier.flag(index, flags, of: tile) }
                var sum = 0.0
                segments(of: tile, index..<index + 1, sparsifier) { range, bands in
                    for place in range where bands[0].contains(vector[place]) && flags?[place] != 0 {
                        sum += Double(vector[place]) * Double(vector[place])
                    }
                }
                sums[index] = sum
            }
        }
        var all = [Double](repeating: 0, count: tensor.sources.count)
        for (index, model) in models.enumerated() {
            let factor = Double(factors?[index] ?? 1)
            all[model] = norms[index] * factor * factor
        }
        return all
    }

    private func taskVector(
        _ index: Int, of tile: Tile, _ isFlagged: Bool, _ flag: (UnsafeMutablePointer<UInt8>) throws -> Void
    ) throws -> Kernels.TaskVector {
        let model = models[index], flags = isFlagged ? tile.flags(model) : nil
        if let flags { try flag(flags) }
        return try tile.storedTaskVector(model, base: base, flags: flags.map { UnsafePointer($0) })
    }

    /// Calls `body` for each segment of the tile within which the bands of all models stay the same. Segments count from the
    /// beginning of the tile.
    private func segments(
        of tile: Tile, _ indices: Range<Int>, _ sparsifier: any Sparsifier, _ body: (Range<Int>, [MagnitudeBand]) -> Void
    ) {
        var start = tile.range.lowerBound
        while start < tile.range.upperBound {
            let bands = indices.map { sparsifier.band($0, from: start) }
            let end = bands.reduce(tile.range.upperBound) { min($0, $1.end) }
            body(start - tile.range.lowerBound..<end - tile.range.lowerBound, bands.map(\.0))
            start = end
        }
    }

    /// `Σ|d| / Σ|kept d|` for each model; 1 if either sum is too small.
    private func rescalingFactors(_ sparsifier: any Sparsifier, noting notes: FlagNotes, in tensor: TensorPasses) throws
        -> [Float]
    {
        let sums = try tensor.sums(2 * models.count) { tile, sums in
            for index in models.indices where densities[index] < 1 {
                let vector = try taskVector(index, of: tile, sparsifier.isFlagging(index)) { flags in
                    try sparsifier.flag(index, flags, of: tile)
                    notes.note(index, flags, of: tile)
                }
                var magnitudes = Kernels.MagnitudeSums()
                segments(of: tile, index..<index + 1, sparsifier) { range, bands in
                    vector.addMagnitudes(range, bands[0], to: &magnitudes, kernels: tile.kernels)
                }
                sums[2 * index] = magnitudes.all
                sums[2 * index + 1] = magnitudes.kept
            }
        }
        let least = 1e-7
        return models.indices.map { index in
            let all = sums[2 * index], kept = sums[2 * index + 1]
            return all < least || kept < least ? 1 : Float(all / kept)
        }
    }
}

/// Keeps the flags of the first of two passes, one bit each, for the second. Holds as many tiles as there is free memory for.
private final class FlagNotes: @unchecked Sendable {
    // Unchecked: a tile's part of the buffer is written by one thread in the first pass, and only read in the second.
    private let buffer: UnsafeMutablePointer<UInt32>
    private let models: Int
    private let tiles: Int
    private let memory: MemoryReservation

    private static let wordsPerTile = FixedTree.tileElements / 32

    init(models: Int, elements: Int, memory: MemoryBudget) {
        self.models = models
        let bytesPerTile = max(1, models) * Self.wordsPerTile * MemoryLayout<UInt32>.stride
        let count = (elements + FixedTree.tileElements - 1) / FixedTree.tileElements
        self.memory = memory.reserve(upTo: count * bytesPerTile)
        tiles = self.memory.byteCount / bytesPerTile
        buffer = .allocate(capacity: max(1, self.memory.byteCount / MemoryLayout<UInt32>.stride))
    }

    deinit { buffer.deallocate() }

    private func words(_ model: Int, of tile: Tile) -> UnsafeMutablePointer<UInt32>? {
        let index = tile.range.lowerBound / FixedTree.tileElements
        return index < tiles ? buffer + (index * models + model) * Self.wordsPerTile : nil
    }

    func note(_ model: Int, _ flags: UnsafePointer<UInt8>, of tile: Tile) {
        guard let words = words(model, of: tile) else { return }
        tile.kernels.pack(flags, into: words, count: tile.count)
    }

    /// - Returns: whether the flags were kept.
    func recall(_ model: Int, _ flags: UnsafeMutablePointer<UInt8>, of tile: Tile) -> Bool {
        guard let words = words(model, of: tile) else { return false }
        tile.kernels.unpack(words, into: flags, count: tile.count)
        return true
    }
}
