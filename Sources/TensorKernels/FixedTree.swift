/// The order of summation over a tensor, which is the same for any number of threads and any division of the work.
///
/// Each tile is summed on its own. The tiles' sums are then added in a pairwise tree over their indices, in which the rounding
/// error grows only with the logarithm of the number of tiles.
package enum FixedTree {
    /// Elements of a tile. Small enough that a tile of every source fits the core's own cache.
    package static let tileElements = 8192

    /// The sum of the tiles' sums, which are in order.
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
