/// Regular expressions, one of which is searched for in a text, with what its group holds, as Python's `re.search` does with
/// `(?:first)|(?:second)`.
///
/// The search backtracks, so that its time may grow with a power of the text's length: it is for patterns of our own. Those of
/// others are matched as `ModulePattern`s.
struct SearchPattern: Sendable {
    struct Match {
        /// Which of the expressions it was.
        let branch: Int
        let range: Range<Int>
        /// What its first group held.
        let group: Range<Int>?
    }

    private let branches: [(node: PatternNode, groups: Int)]

    /// - Throws: `PatternProblem` for a pattern that is not valid.
    init(_ patterns: [String]) throws(PatternProblem) {
        var branches: [(node: PatternNode, groups: Int)] = []
        for pattern in patterns {
            var parser = PatternParser(pattern)
            let node = try parser.whole()
            branches.append((node, parser.groupCount))
        }
        self.branches = branches
    }

    func firstMatch(in text: [Unicode.Scalar]) -> Match? {
        let matcher = Matcher(text, groups: branches.map(\.groups).max() ?? 0)
        for start in 0...text.count {
            for (index, branch) in branches.enumerated() {
                if let end = matcher.end(of: branch.node, from: start) {
                    return Match(branch: index, range: start..<end, group: branch.groups > 0 ? matcher.groups[0] : nil)
                }
            }
        }
        return nil
    }
}

/// Attempts at the places of a text.
private final class Matcher {
    private let text: [Unicode.Scalar]
    /// Those of the last attempt.
    private(set) var groups: [Range<Int>?]

    init(_ text: [Unicode.Scalar], groups: Int) {
        self.text = text
        self.groups = Array(repeating: nil, count: groups)
    }

    func end(of node: PatternNode, from start: Int) -> Int? {
        for index in groups.indices { groups[index] = nil }
        var end: Int?
        _ = run(node, at: start) { reached in
            end = reached
            return true
        }
        return end
    }

    /// Whether the node fits at a place, and what follows it (`next`) at its end.
    private func run(_ node: PatternNode, at place: Int, _ next: (Int) -> Bool) -> Bool {
        switch node {
        case .one(let set): return place < text.count && set.contains(text[place]) && next(place + 1)
        case .begin: return place == 0 && next(place)
        case .end: return place == text.count && next(place)
        case .sequence(let nodes): return run(nodes[...], at: place, next)
        case .choice(let first, let second): return run(first, at: place, next) || run(second, at: place, next)
        case .repeated(let node, let least, let most):
            return run(node, from: least, to: most ?? .max, done: 0, at: place, next)
        case .group(let index, let node):
            return run(node, at: place) { end in
                let before = groups[index]
                groups[index] = place..<end
                if next(end) { return true }
                groups[index] = before
                return false
            }
        case .look(let node, let isAhead, let isWanted):
            let found =
                isAhead
                ? run(node, at: place) { _ in true } : (0...place).contains { run(node, at: $0) { end in end == place } }
            return found == isWanted && next(place)
        }
    }

    private func run(_ nodes: ArraySlice<PatternNode>, at place: Int, _ next: (Int) -> Bool) -> Bool {
        guard let first = nodes.first else { return next(place) }
        return run(first, at: place) { end in run(nodes.dropFirst(), at: end, next) }
    }

    private func run(
        _ node: PatternNode, from least: Int, to most: Int, done: Int, at place: Int, _ next: (Int) -> Bool
    ) -> Bool {
        // A turn that takes nothing would never end.
        let goesOn =
            done < most
            && run(node, at: place) { end in
                end > place && run(node, from: least, to: most, done: done + 1, at: end, next)
            }
        return goesOn || (done >= least && next(place))
    }
}
