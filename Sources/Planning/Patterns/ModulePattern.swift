/// A regular expression of `alpha_pattern`, matched as PEFT does (`re.match(rf"(.*\.)?({pattern})$", path)`): at the beginning of
/// a module's path or behind a dot, and up to its end.
///
/// All threads of a nondeterministic automaton advance together (Thompson, Comm. ACM 11, 1968), so that the time is the length of
/// the path times that of the pattern, whatever the pattern is.
struct ModulePattern {
    private enum Step {
        case one(CharacterClass)
        /// Goes on at the first place, then at the second.
        case fork(Int, Int)
        case begin
        case end
        case accept
    }

    private let steps: [Step]

    /// - Throws: `PatternProblem` for a pattern that is not valid, or that needs more than an automaton.
    init(_ pattern: String) throws(PatternProblem) {
        var parser = PatternParser(pattern)
        let node = try parser.whole()
        var steps: [Step] = []
        try Self.compile(node, into: &steps)
        self.steps = steps + [.accept]
    }

    // MARK: Matching

    func matches(_ path: String) -> Bool {
        let text = Array(path.unicodeScalars)
        var threads = Threads(count: steps.count)
        for position in 0...text.count {
            if position == 0 || text[position - 1] == "." { follow(0, at: position, of: text.count, &threads) }
            guard position < text.count else { break }
            var next = Threads(count: steps.count)
            for place in threads.places {
                if case .one(let set) = steps[place], set.contains(text[position]) {
                    follow(place + 1, at: position + 1, of: text.count, &next)
                }
            }
            threads = next
        }
        return threads.places.contains { if case .accept = steps[$0] { true } else { false } }
    }

    /// The places of the automaton that are reached, each once.
    private struct Threads {
        var places: [Int] = []
        private var seen: [Bool]

        init(count: Int) { seen = Array(repeating: false, count: count) }

        mutating func insert(_ place: Int) -> Bool {
            guard !seen[place] else { return false }
            seen[place] = true
            places.append(place)
            return true
        }
    }

    /// Adds a place, and those that are reached from it without a character.
    private func follow(_ start: Int, at position: Int, of count: Int, _ threads: inout Threads) {
        var open = [start]
        while let place = open.popLast() {
            guard threads.insert(place) else { continue }
            switch steps[place] {
            case .fork(let first, let second): open += [second, first]
            case .begin: if position == 0 { open.append(place + 1) }
            case .end: if position == count { open.append(place + 1) }
            case .one, .accept: break
            }
        }
    }

    // MARK: Compiling

    private static let stepLimit = 4096

    private static func compile(_ node: PatternNode, into steps: inout [Step]) throws(PatternProblem) {
        guard steps.count < stepLimit else { throw PatternProblem("is too long") }
        switch node {
        case .one(let set): steps.append(.one(set))
        case .begin: steps.append(.begin)
        case .end: steps.append(.end)
        case .group(_, let node): try compile(node, into: &steps)
        case .look: throw PatternProblem("has a group '(?…' other than '(?:…)'")
        case .sequence(let nodes): for node in nodes { try compile(node, into: &steps) }
        case .choice(let first, let second):
            let fork = steps.count
            steps.append(.fork(fork + 1, 0))
            try compile(first, into: &steps)
            let jump = steps.count
            steps.append(.fork(0, 0))
            steps[fork] = .fork(fork + 1, steps.count)
            try compile(second, into: &steps)
            steps[jump] = .fork(steps.count, steps.count)
        case .repeated(let node, let least, let most):
            for _ in 0..<least { try compile(node, into: &steps) }
            guard let most else {
                let fork = steps.count
                steps.append(.fork(fork + 1, 0))
                try compile(node, into: &steps)
                steps.append(.fork(fork, fork))
                steps[fork] = .fork(fork + 1, steps.count)
                return
            }
            var forks: [Int] = []
            for _ in least..<max(least, most) {
                forks.append(steps.count)
                steps.append(.fork(steps.count + 1, 0))
                try compile(node, into: &steps)
            }
            for fork in forks { steps[fork] = .fork(fork + 1, steps.count) }
        }
    }
}
