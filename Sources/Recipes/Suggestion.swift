/// Suggests corrections for misspelled words.
package enum Suggestion {
    /// The known word with the smallest edit distance, if it is small enough for a typo.
    package static func closest(to word: String, in known: some Sequence<String>) -> String? {
        let limit = max(1, word.count / 3)
        return known.map { (word: $0, distance: distance(word, $0)) }.filter { $0.distance <= limit }
            .min { ($0.distance, $0.word) < ($1.distance, $1.word) }?.word
    }

    /// Advice for an unknown word: the closest known word, or otherwise the whole list.
    package static func advice(for word: String, in known: [String], otherwise: String) -> String {
        closest(to: word, in: known).map { "did you mean '\($0)'?" } ?? "\(otherwise) \(known.joined(separator: ", "))"
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
