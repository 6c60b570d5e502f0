/// The keys of LiNeS (arXiv 2410.17146) in a recipe: `lines: {alpha: 0.125, beta: 0.5}` multiplies the method's scale by a factor
/// that grows with depth. They are read as two parameters.
package enum LayerScale {
    static let name = "lines"
    package static let alpha = "\(name).alpha", beta = "\(name).beta"
}
