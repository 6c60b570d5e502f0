import TensorKernels

/// The share of a whole model's magnitudes that the published trims keep (TIES, arXiv 2306.01708; DOGE, arXiv 2501.01230).
///
/// Of `d` magnitudes and a share `K`, the threshold is the `(d − ⌊d·K⌋)`-th smallest, and everything from it on stays: one
/// entry more than the share, and all that are equal to the threshold.
enum PublishedTrim {
    /// The rank of the threshold, from the largest.
    static func rank(of count: Int, share: Double) -> Int { min(count, Int(Double(count) * share) + 1) }

    /// The magnitudes that are kept: all for the share 1, none for 0.
    static func band(from threshold: Double, share: Double) -> MagnitudeBand {
        if share >= 1 { return .all }
        return share <= 0 ? .none : MagnitudeBand(from: Float(threshold).bitPattern, to: .largestMagnitude)
    }
}

/// Keeps the same magnitudes of a task vector in every tensor of the model.
struct ModelTrim: Sparsifier {
    /// For each model.
    let bands: [MagnitudeBand]

    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int) { (bands[index], .max) }
}
