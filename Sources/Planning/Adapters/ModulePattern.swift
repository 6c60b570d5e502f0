/// A regular expression of `alpha_pattern`, matched as PEFT does (`re.match(rf"(.*\.)?({pattern})$", path)`): at the beginning of
/// a module's path or behind a dot, and up to its end.
///
/// All threads of a nondeterministic automaton advance together (Thompson, Comm. ACM 11, 1968), so that the time is the length of
/// the path times that of the pattern, whatever the pattern is.
struct ModulePattern {
    private enum Step {
        case one(Class)
        /// Goes on at the first place, then at the second.
        case fork(Int, Int)
        case begin
        case end
        case accept
    }

    private let steps: [Step]

    /// - Throws: `PatternProblem` for a pattern that is not valid, or that needs more than an automaton.
    init(_ pattern: String) throws(PatternProblem) {
        var parser = Parser(pattern)
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

    private static func compile(_ node: Node, into steps: inout [Step]) throws(PatternProblem) {
        guard steps.count < stepLimit else { throw PatternProblem("is too long") }
        switch node {
        case .one(let set): steps.append(.one(set))
        case .begin: steps.append(.begin)
        case .end: steps.append(.end)
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

/// Why a pattern cannot be used: a clause.
struct PatternProblem: Error {
    let text: String

    init(_ text: String) { self.text = text }
}

/// A set of characters.
private struct Class {
    var ranges: [ClosedRange<Unicode.Scalar>] = []
    var isInverted = false

    func contains(_ scalar: Unicode.Scalar) -> Bool { ranges.contains { $0.contains(scalar) } != isInverted }

    static let any = Class(ranges: ["\n"..."\n"], isInverted: true)
    static let digits: [ClosedRange<Unicode.Scalar>] = ["0"..."9"]
    static let words: [ClosedRange<Unicode.Scalar>] = ["0"..."9", "A"..."Z", "_"..."_", "a"..."z"]
    static let spaces: [ClosedRange<Unicode.Scalar>] = ["\t"..."\r", " "..." "]
}

private indirect enum Node {
    case one(Class)
    case begin
    case end
    case sequence([Node])
    case choice(Node, Node)
    case repeated(Node, least: Int, most: Int?)
}

/// Reads the regular expressions of Python that describe regular languages.
private struct Parser {
    private let text: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    /// Deep enough for any pattern that a person writes.
    private static let depthLimit = 32
    private static let repeatLimit = 1000

    init(_ pattern: String) { text = Array(pattern.unicodeScalars) }

    private var next: Unicode.Scalar? { position < text.count ? text[position] : nil }

    private mutating func takes(_ scalar: Unicode.Scalar) -> Bool {
        guard next == scalar else { return false }
        position += 1
        return true
    }

    mutating func whole() throws(PatternProblem) -> Node {
        let node = try choice()
        guard next == nil else { throw PatternProblem("has a ')' without '('") }
        return node
    }

    private mutating func choice() throws(PatternProblem) -> Node {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw PatternProblem("is nested too deep") }
        var node = try sequence()
        while takes("|") { node = .choice(node, try sequence()) }
        return node
    }

    private mutating func sequence() throws(PatternProblem) -> Node {
        var nodes: [Node] = []
        while let scalar = next, scalar != "|", scalar != ")" { nodes.append(try quantified(try atom())) }
        return .sequence(nodes)
    }

    private mutating func atom() throws(PatternProblem) -> Node {
        let scalar = text[position]
        position += 1
        switch scalar {
        case ".": return .one(.any)
        case "^": return .begin
        case "$": return .end
        case "(":
            if takes("?") { guard takes(":") else { throw PatternProblem("has a group '(?…' other than '(?:…)'") } }
            let node = try choice()
            guard takes(")") else { throw PatternProblem("has a '(' without ')'") }
            return node
        case "[": return .one(try brackets())
        case "\\": return .one(try escape())
        case "*", "+", "?": throw PatternProblem("repeats nothing at '\(scalar)'")
        default: return .one(Class(ranges: [scalar...scalar]))
        }
    }

    private mutating func quantified(_ node: Node) throws(PatternProblem) -> Node {
        var node = node
        if takes("*") {
            node = .repeated(node, least: 0, most: nil)
        } else if takes("+") {
            node = .repeated(node, least: 1, most: nil)
        } else if takes("?") {
            node = .repeated(node, least: 0, most: 1)
        } else if next == "{", let counts = counts() {
            guard counts.least <= counts.most ?? Self.repeatLimit, max(counts.least, counts.most ?? 0) <= Self.repeatLimit else {
                throw PatternProblem("has a repetition out of order or above \(Self.repeatLimit)")
            }
            node = .repeated(node, least: counts.least, most: counts.most)
        } else {
            return node
        }
        // How eagerly it repeats decides what is captured, not what matches.
        _ = takes("?")
        if let next, "*+?".unicodeScalars.contains(next) { throw PatternProblem("repeats a repetition") }
        return node
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}`; `nil` for braces that are meant as characters.
    private mutating func counts() -> (least: Int, most: Int?)? {
        guard let end = text[position...].firstIndex(of: "}") else { return nil }
        let parts = text[position + 1..<end].split(separator: ",", omittingEmptySubsequences: false).map { digits in
            String(String.UnicodeScalarView(digits))
        }
        guard (1...2).contains(parts.count), parts.contains(where: { !$0.isEmpty }),
            parts.allSatisfy({ $0.isEmpty || Int($0) != nil && $0.utf8.allSatisfy { (48...57).contains($0) } })
        else { return nil }
        position = end + 1
        let least = Int(parts[0]) ?? 0
        return (least, parts.count == 1 ? least : Int(parts[1]))
    }

    private mutating func escape() throws(PatternProblem) -> Class {
        guard let scalar = next else { throw PatternProblem("ends in a backslash") }
        position += 1
        switch scalar {
        case "d": return Class(ranges: Class.digits)
        case "D": return Class(ranges: Class.digits, isInverted: true)
        case "w": return Class(ranges: Class.words)
        case "W": return Class(ranges: Class.words, isInverted: true)
        case "s": return Class(ranges: Class.spaces)
        case "S": return Class(ranges: Class.spaces, isInverted: true)
        default:
            guard scalar.isASCII, !scalar.properties.isAlphabetic, !Class(ranges: Class.digits).contains(scalar) else {
                throw PatternProblem("has '\\\(scalar)', which is not understood here")
            }
            return Class(ranges: [scalar...scalar])
        }
    }

    private mutating func brackets() throws(PatternProblem) -> Class {
        var set = Class(isInverted: takes("^")), isFirst = true
        while let scalar = next, scalar != "]" || isFirst {
            isFirst = false
            position += 1
            var low = scalar
            if scalar == "\\" {
                let escaped = try escape()
                guard !escaped.isInverted else { throw PatternProblem("has an inverted class inside '[…]'") }
                set.ranges += escaped.ranges
                guard escaped.ranges.count == 1, escaped.ranges[0].lowerBound == escaped.ranges[0].upperBound else { continue }
                low = escaped.ranges[0].lowerBound
            }
            if next == "-", position + 1 < text.count, text[position + 1] != "]" {
                let high = text[position + 1]
                guard high != "\\", low <= high else { throw PatternProblem("has a range out of order inside '[…]'") }
                position += 2
                set.ranges.append(low...high)
            } else {
                set.ranges.append(low...low)
            }
        }
        guard takes("]") else { throw PatternProblem("has a '[' without ']'") }
        return set
    }
}
