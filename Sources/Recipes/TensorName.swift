/// What a tensor's name tells about its place in the model, for any architecture that numbers its layers.
package struct TensorName: Sendable, Hashable {
    package struct Layer: Sendable, Hashable {
        /// The text before the number: `model.layers`.
        package let prefix: String
        package let index: Int
    }

    private let text: String

    package init(_ text: String) { self.text = text }

    /// The layer, by the first part of the name that is a number.
    package var layer: Layer? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard let position = parts.firstIndex(where: { $0.utf8.allSatisfy { (48...57).contains($0) } && Int($0) != nil }),
            position > 0, position < parts.count - 1, let index = Int(parts[position])
        else { return nil }
        return Layer(prefix: parts[..<position].joined(separator: "."), index: index)
    }
}
