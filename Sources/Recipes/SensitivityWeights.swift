package import Core
import Yams

/// How much errors in tensors count: a YAML or JSON file that maps parts of tensor names to weights.
package struct SensitivityWeights: Sendable {
    private let weights: [(part: String, weight: Double)]
    private static let byteLimit = 16 << 20

    /// - Throws: `badData` if the file is not such a map.
    package init(file: String, in files: any InputFiles) throws(TesseraError) {
        let text = String(decoding: try files.read(file, maxBytes: Self.byteLimit), as: UTF8.self)
        guard (try? Aliases.problem(in: text)) == nil, let node = try? Yams.compose(yaml: text), case .mapping(let mapping) = node
        else {
            throw TesseraError(
                .badData, "is not a map from tensor names to weights", file: file,
                advice: "write entries such as 'mlp.down_proj: 2.5'")
        }
        var weights: [(part: String, weight: Double)] = []
        for (key, value) in mapping {
            guard let part = key.plainText, let weight = value.scalarValue?.asDouble, weight >= 0, weight.isFinite else {
                throw TesseraError(
                    .badData, "a weight must be a non-negative number", file: file, line: value.line,
                    advice: "write entries such as 'mlp.down_proj: 2.5'")
            }
            weights.append((part, weight))
        }
        self.weights = weights
    }

    /// The weight of the longest part contained in the name; 1 if there is none.
    package func weight(of name: String) -> Double {
        weights.filter { name.holds($0.part) }.max { $0.part.utf8.count < $1.part.utf8.count }?.weight ?? 1
    }
}
