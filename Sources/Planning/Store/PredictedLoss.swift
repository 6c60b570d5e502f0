import TaskVectors

/// What a model is expected to lose by a stored vector, before it is stored.
///
/// The error of the codes is part of what fine-tuning made, and follows its directions: it is compared with the task's vector.
/// What thinning drops and exaggerates is noise without a direction: through a layer it adds up like a random walk, and is
/// compared with the layer's own output, whose scale is the base's. A step along τ that is too short is not in it, for there is
/// none.
struct PredictedLoss {
    /// The share of `Στ²` that the codes lose with every element kept.
    private let codes: Double
    /// The variance of thinning, in the same unit.
    private let variance: Double
    private let energy: Double

    /// `Σ(τ − τ̂)²`, the variance of thinning included.
    var squaredError: Double { (codes + variance) * energy }

    /// - Parameters:
    ///   - error: `Σ(τ − τ̂)²` with every element kept.
    ///   - energy: `Στ²`, above 0.
    init(_ format: StorageFormat, error: Double, energy: Double) {
        self.energy = energy
        codes = energy > 0 ? error / energy : 0
        // One of k elements, k times as large: k (Στ² + error) instead of Στ² + error.
        variance = (1 + codes) * Double(format.stride - 1)
    }

    /// - Parameter relativeChange: `Στ² / Σθ₀²` of the task.
    func loss(relativeChange: Double) -> Double { codes + relativeChange * variance }
}

extension StorageFormat {
    /// Of how many elements one is kept.
    var stride: Int { if case .thinned(let grid) = self { grid.every } else { 1 } }

    /// The thinned format with another stride; any other as it is.
    func keeping(oneOf every: Int) -> StorageFormat {
        guard case .thinned(let grid) = self else { return self }
        return .thinned(ThinnedGrid(bits: grid.bits, group: grid.group, every: every))
    }
}
