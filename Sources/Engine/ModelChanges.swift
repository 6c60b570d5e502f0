/// How far models moved from their base: sums over entries of the base `b` and of the task vectors `τᵢ = xᵢ − b`, for one tensor
/// or several.
package struct ModelChanges: Sendable, Hashable {
    /// The number of models.
    package let models: Int
    package private(set) var elements = 0
    private var baseSquares = 0.0
    /// `τᵢ·τⱼ` and the counts of pairs: the upper triangle with its diagonal, by rows.
    private var products: [Double]
    /// Entries in which both task vectors are not 0. On the diagonal: in which the one is not.
    private var moved: [Int]
    /// Entries in which both have the same sign.
    private var agreeing: [Int]
    /// `max |τᵢ|`.
    private var largest: [Double]

    package init(models: Int) {
        self.models = models
        let pairs = models * (models + 1) / 2
        products = Array(repeating: 0, count: pairs)
        moved = Array(repeating: 0, count: pairs)
        agreeing = Array(repeating: 0, count: pairs)
        largest = Array(repeating: 0, count: models)
    }

    /// Adds the sums over other entries. Sums of float64 are added in the order of the calls.
    package mutating func add(_ other: ModelChanges) {
        elements += other.elements
        baseSquares += other.baseSquares
        for index in products.indices {
            products[index] += other.products[index]
            moved[index] += other.moved[index]
            agreeing[index] += other.agreeing[index]
        }
        for index in largest.indices { raiseLargest(of: index, to: other.largest[index]) }
    }

    mutating func addElements(_ count: Int, baseSquares: Double) {
        elements += count
        self.baseSquares += baseSquares
    }

    mutating func addPair(_ first: Int, _ second: Int, product: Double, moved: Int, agreeing: Int) {
        let index = pair(first, second)
        products[index] += product
        self.moved[index] += moved
        self.agreeing[index] += agreeing
    }

    mutating func raiseLargest(of model: Int, to magnitude: Double) {
        largest[model] = magnitude.isNaN || largest[model].isNaN ? .nan : max(largest[model], magnitude)
    }

    private func pair(_ first: Int, _ second: Int) -> Int {
        let low = min(first, second), high = max(first, second)
        return low * models - low * (low - 1) / 2 + (high - low)
    }

    // MARK: Results

    /// `‖b‖`.
    package var baseNorm: Double { baseSquares.squareRoot() }

    /// `‖τᵢ‖`.
    package func norm(of model: Int) -> Double { products[pair(model, model)].squareRoot() }

    /// `‖τᵢ‖ / ‖b‖`; `nil` for a base of zeros and for numbers that are not finite.
    package func relativeChange(of model: Int) -> Double? { Self.finite(norm(of: model) / baseNorm) }

    /// `max |τᵢ|`; `nil` unless it is finite.
    package func largestChange(of model: Int) -> Double? { Self.finite(largest[model]) }

    /// The share of the entries that differ from the base's, 0...1; `nil` without entries.
    package func movedShare(of model: Int) -> Double? { Self.finite(Double(moved[pair(model, model)]) / Double(elements)) }

    /// `τᵢ·τⱼ / (‖τᵢ‖·‖τⱼ‖)`; `nil` where a task vector is zero or not finite.
    package func cosine(_ first: Int, _ second: Int) -> Double? {
        // A norm is rounded, and a cosine with itself is 1.
        Self.finite(products[pair(first, second)] / (norm(of: first) * norm(of: second))).map { min(1, max(-1, $0)) }
    }

    /// Of the entries that both models moved, the share in which they moved to the same side, 0...1; `nil` where there are none.
    package func signAgreement(_ first: Int, _ second: Int) -> Double? {
        let index = pair(first, second)
        return Self.finite(Double(agreeing[index]) / Double(moved[index]))
    }

    /// `‖τᵢ − τⱼ‖² / ‖τᵢ‖²`: the error of `j` as a copy of `i`; `nil` for a zero task vector.
    package func squaredError(of first: Int, as second: Int) -> Double? {
        let whole = products[pair(first, first)]
        return Self.finite((whole - 2 * products[pair(first, second)] + products[pair(second, second)]) / whole)
            .map { max(0, $0) }
    }

    private static func finite(_ value: Double) -> Double? { value.isFinite ? value : nil }
}
