package import Checkpoints
import Core
import Recipes
import Work

/// One of the checkpoints of a sweep: a folder of the output that is a checkpoint by itself.
package struct SweptCheckpoint: Sendable {
    package let folder: String
    /// The recipe that makes this checkpoint alone.
    package let recipeText: String
    /// By their names in the folder.
    package let sidecars: [SidecarFile]
}

extension Sweep {
    /// The most tensors in all checkpoints together: each is planned by itself.
    private static let tensorLimit = 200_000

    /// - Parameter tensors: of one checkpoint.
    /// - Throws: a problem for more than can be planned at once.
    func check(tensors: Int) throws(Problems) {
        guard tensors * points.count > Self.tensorLimit else { return }
        throw Problems([
            TesseraError(
                .badData,
                "the sweep makes \(points.count) checkpoints of \(tensors) tensors, and at most \(Self.tensorLimit) tensors are "
                    + "possible", file: file, advice: "list fewer values, and the others in another recipe")
        ])
    }

    /// What stands beside the folders.
    var files: [SidecarFile] {
        [SidecarFile(name: "recipe.yml", bytes: Array(text.utf8)), SidecarFile(name: "README.md", bytes: Array(card.utf8))]
    }

    private var card: String {
        """
        # Sweep of \(parameters.joined(separator: ", "))

        Each folder is a checkpoint of its own, merged with Tessera by `\(points[0].recipe.method.value)`:

        \(points.map { "- `\($0.name)`" }.joined(separator: "\n"))

        `tessera verify` checks this directory as a whole, or one of the folders.

        ```yaml
        \(text.hasSuffix("\n") ? String(text.dropLast()) : text)
        ```

        """
    }

    /// - Parameter work: on all of the `tensors`.
    func remarks(of work: [TensorWork], tensors: Int) -> [String] {
        let merges =
            work.filter { $0.outputs.count > 1 }.count == tensors
            ? "each tensor is merged once for all of them" : "\(work.count) merges of \(tensors) tensors"
        return ["sweep of \(parameters.joined(separator: ", ")): \(points.count) checkpoints; \(merges)"]
    }
}
