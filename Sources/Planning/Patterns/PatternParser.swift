/// Why a pattern cannot be used: a clause.
struct PatternProblem: Error {
    let text: String

    init(_ text: String) { self.text = text }
}

/// A set of characters.
struct CharacterClass: Sendable {
    var ranges: [ClosedRange<Unicode.Scalar>] = []
    var isInverted = false

    func contains(_ scalar: Unicode.Scalar) -> Bool { ranges.contains { $0.contains(scalar) } != isInverted }

    static let any = CharacterClass(ranges: ["\n"..."\n"], isInverted: true)
    static let digits: [ClosedRange<Unicode.Scalar>] = ["0"..."9"]
    static let words: [ClosedRange<Unicode.Scalar>] = ["0"..."9", "A"..."Z", "_"..."_", "a"..."z"]
    static let spaces: [ClosedRange<Unicode.Scalar>] = ["\t"..."\r", " "..." "]
}

indirect enum PatternNode: Sendable {
    case one(CharacterClass)
    case begin
    case end
    /// Counted from 0 by the place of its '('.
    case group(Int, PatternNode)
    /// Whether the text behind this place, or before it, fits.
    case look(PatternNode, isAhead: Bool, isWanted: Bool)
    case sequence([PatternNode])
    case choice(PatternNode, PatternNode)
    case repeated(PatternNode, least: Int, most: Int?)
}

/// Reads the regular expressions of Python that describe regular languages.
struct PatternParser {
    private let text: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    private(set) var groupCount = 0
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

    mutating func whole() throws(PatternProblem) -> PatternNode {
        let node = try choice()
        guard next == nil else { throw PatternProblem("has a ')' without '('") }
        return node
    }

    private mutating func choice() throws(PatternProblem) -> PatternNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw PatternProblem("is nested too deep") }
        var node = try sequence()
        while takes("|") { node = .choice(node, try sequence()) }
        return node
    }

    private mutating func sequence() throws(PatternProblem) -> PatternNode {
        var nodes: [PatternNode] = []
        while let scalar = next, scalar != "|", scalar != ")" { nodes.append(try quantified(try atom())) }
        return .sequence(nodes)
    }

    private mutating func atom() throws(PatternProblem) -> PatternNode {
        let scalar = text[position]
        position += 1
        switch scalar {
        case ".": return .one(.any)
        case "^": return .begin
        case "$": return .end
        case "(":
            return try group()
        case "[": return .one(try brackets())
        case "\\": return .one(try escape())
        case "*", "+", "?": throw PatternProblem("repeats nothing at '\(scalar)'")
        default: return .one(CharacterClass(ranges: [scalar...scalar]))
        }
    }

    /// What stands behind a '('.
    private mutating func group() throws(PatternProblem) -> PatternNode {
        let number = groupCount
        var isAhead = true, isWanted: Bool?, isCaptured = true
        if takes("?") {
            isCaptured = false
            if !takes(":") {
                isAhead = !takes("<")
                isWanted = takes("=")
                guard isWanted == true || takes("!") else { throw PatternProblem("has a group '(?…' other than '(?:…)'") }
            }
        }
        if isCaptured { groupCount += 1 }
        let node = try choice()
        guard takes(")") else { throw PatternProblem("has a '(' without ')'") }
        if let isWanted { return .look(node, isAhead: isAhead, isWanted: isWanted) }
        return isCaptured ? .group(number, node) : node
    }

    private mutating func quantified(_ node: PatternNode) throws(PatternProblem) -> PatternNode {
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
        // How eagerly it repeats decides what is captured, not what matches; no pattern here that captures is reluctant.
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

    private mutating func escape() throws(PatternProblem) -> CharacterClass {
        guard let scalar = next else { throw PatternProblem("ends in a backslash") }
        position += 1
        switch scalar {
        case "d": return CharacterClass(ranges: CharacterClass.digits)
        case "D": return CharacterClass(ranges: CharacterClass.digits, isInverted: true)
        case "w": return CharacterClass(ranges: CharacterClass.words)
        case "W": return CharacterClass(ranges: CharacterClass.words, isInverted: true)
        case "s": return CharacterClass(ranges: CharacterClass.spaces)
        case "S": return CharacterClass(ranges: CharacterClass.spaces, isInverted: true)
        default:
            guard scalar.isASCII, !scalar.properties.isAlphabetic, !CharacterClass(ranges: CharacterClass.digits).contains(scalar)
            else {
                throw PatternProblem("has '\\\(scalar)', which is not understood here")
            }
            return CharacterClass(ranges: [scalar...scalar])
        }
    }

    private mutating func brackets() throws(PatternProblem) -> CharacterClass {
        var set = CharacterClass(isInverted: takes("^")), isFirst = true
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
