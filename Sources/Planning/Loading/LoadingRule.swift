/// A rule by which transformers gives a tensor of a checkpoint the name that it has in the loaded model.
struct LoadingRule: Sendable {
    enum Kind: Sendable, Equatable {
        case renaming
        /// Several tensors are made into others by these operations in turn.
        case conversion([String])
        /// The names that match are changed in a way that is not known here.
        case unknown
    }

    let kind: Kind
    /// The tensors that become of the sources. A name gets the first; the others differ from it in this text alone.
    let targets: [String]
    let sourceCount: Int
    private let pattern: SearchPattern
    /// The sources in the order in which they are tried: the longest first.
    private let order: [Int]

    /// - Throws: `PatternProblem` for a pattern that is not valid.
    init(_ kind: Kind, sources: [String], targets: [String]) throws(PatternProblem) {
        self.kind = kind
        self.targets = targets
        sourceCount = sources.count
        order = sources.indices.sorted { (-sources[$0].count, $0) < (-sources[$1].count, $1) }
        pattern = try SearchPattern(order.map { sources[$0] })
    }

    /// - Parameter prefixes: of which a name must begin with one, which the patterns do not see; the first that fits is taken.
    /// - Returns: the new name and the number of the source; `nil` for a name that the rule is not about.
    func renamed(_ name: String, behind prefixes: [String]) -> (name: String, source: Int)? {
        guard let prefix = prefixes.first(where: { name.hasPrefix($0) }), let target = targets.first else { return nil }
        let text = Array(name.dropFirst(prefix.count).unicodeScalars)
        guard let match = pattern.firstMatch(in: text) else { return nil }
        let replacement = target.replacing("\\1", with: match.group.map { Self.string(text[$0]) } ?? "")
        // The first place with the text of the match, as `str.replace` finds it.
        let matched = text[match.range]
        let place = (0...match.range.lowerBound).first { text[$0...].starts(with: matched) } ?? match.range.lowerBound
        let rest = text[(place + matched.count)...]
        return ("\(prefix)\(Self.string(text[..<place]))\(replacement)\(Self.string(rest))", order[match.branch])
    }

    private static func string(_ scalars: ArraySlice<Unicode.Scalar>) -> String { String(String.UnicodeScalarView(scalars)) }
}
