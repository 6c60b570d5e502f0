/// Suggests corrections for misspelled words.
package enum Suggestion {
    /// The known word with the smallest edit distance, if it is small enough for a typo. Upper and lower case are the same.
    package static func closest(to word: String, in known: some Sequence<String>) -> String? {
        nearest(to: word, in: known, within: max(1, word.count / 3)).first
    }

    /// Advice for an unknown word of a list of words: those that may be meant, or otherwise the whole list.
    package static func advice(for word: String, in known: [String], otherwise: String) -> String {
        guess(for: word, in: known) ?? "\(otherwise) \(known.joined(separator: ", "))"
    }

    /// The words of a list that may be meant, as a question; `nil` where none is like it.
    package static func guess(for word: String, in known: [String]) -> String? {
        let found = candidates(for: word, in: known).map { "'\($0)'" }
        guard let last = found.last else { return nil }
        return "did you mean \(found.count > 1 ? "\(found.dropLast().joined(separator: ", ")) or \(last)" : last)?"
    }

    /// More words than these are no suggestion.
    private static let mostCandidates = 4

    /// A word may be misspelled, or only the beginning of what is meant.
    private static func candidates(for word: String, in known: [String]) -> [String] {
        if let closest = closest(to: word, in: known) { return [closest] }
        let longer = word.count < 3 ? [] : known.filter { $0.lowercased().hasPrefix(word.lowercased()) }
        let found = longer.isEmpty ? nearest(to: word, in: known, within: min(2, word.count - 1)) : longer
        return found.count <= mostCandidates ? found : []
    }

    /// All words with the smallest distance that is within the limit.
    private static func nearest(to word: String, in known: some Sequence<String>, within limit: Int) -> [String] {
        let word = word.lowercased()
        let found = known.map { (word: $0, distance: distance(word, $0.lowercased())) }.filter { $0.distance <= limit }
        let least = found.map(\.distance).min()
        return found.filter { $0.distance == least }.map(\.word).sorted()
    }

    /// The number of insertions, deletions, substitutions and adjacent swaps between two words.
    private static func distance(_ left: String, _ right: String) -> Int {
        let left = Array(left), right = Array(right)
        var before: [Int] = []
        var previous = Array(0...right.count)
        for row in left.indices {
            var current = [row + 1]
            for column in right.indices {
                let isSame = left[row] == right[column]
                var best = min(previous[column] + (isSame ? 0 : 1), previous[column + 1] + 1, current[column] + 1)
                if row > 0, column > 0, left[row] == right[column - 1], left[row - 1] == right[column] {
                    best = min(best, before[column - 1] + 1)
                }
                current.append(best)
            }
            before = previous
            previous = current
        }
        return previous[right.count]
    }
}
