/// The order in which sums over a tensor are taken, the same for any number of threads and any way of cutting the work.
///
/// The leaf of every sum is a block of `tileElements` consecutive elements. Above the leaves a pairwise tree over the block's
/// index adds neighbours, which also keeps the rounding error at the logarithm of the block count.
package enum FixedTree {
    /// Elements of a leaf. Small enough that a block of every source fits the core's own cache while a method works on it.
    package static let tileElements = 8192

    /// The sum of the leaves, by index.
    package static func sum(_ leaves: [Double]) -> Double {
        var level = leaves
        while level.count > 1 {
            level = stride(from: 0, to: level.count, by: 2).map { index in
                index + 1 < level.count ? level[index] + level[index + 1] : level[index]
            }
        }
        return level.first ?? 0
    }
}
