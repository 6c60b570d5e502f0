import Yams

/// A recipe that names several values of parameters, and stands for one merge with each combination of them (docs/recipes.md).
///
/// Sweeps of the same parameter at several places of the recipe move together; sweeps of different parameters form a grid.
package struct Sweep: Sendable {
    package struct Point: Sendable {
        /// The folder of its checkpoint, such as `lambda=0.1`: one component of a path, unlike that of every other point.
        package let name: String
        /// As if the user had written these values. Its lines are those of the sweep's recipe.
        package let recipe: Recipe
    }

    /// The most checkpoints that one recipe may make.
    static let limit = 100
    /// Bytes of a point's name. File systems allow 255.
    static let nameLimit = 200

    /// The recipe as the user wrote it.
    package let text: String
    /// The name used in messages.
    package let file: String
    /// The parameters that are swept, in the order of the recipe.
    package let parameters: [String]
    /// Never empty; they differ in parameters alone.
    package let points: [Point]
}

/// What a recipe says of one parameter that is swept.
private struct SweptParameter {
    let name: String
    /// Of each place in the recipe: the nodes of its values, equally many at every place.
    var places: [[Node]]
    let line: Int

    var count: Int { places[0].count }

    /// The values at an index, as names of points have them: one, or those of all places.
    func title(_ index: Int) -> String {
        let values = places.map { $0[index].plainText ?? "" }
        return "\(name)=" + (Set(values).count == 1 ? values[0] : values.joined(separator: "_"))
    }
}

extension RecipeReader {
    private static let sweepKey = "sweep"

    static func isSwept(_ root: Node.Mapping) -> Bool {
        var isSwept = false
        _ = replaceSweeps(in: .mapping(root), at: .outside) { _, mapping in
            isSwept = true
            return .mapping(mapping)
        }
        return isSwept
    }

    /// - Returns: `nil` for a recipe whose problems are noted.
    mutating func readSweep(_ root: Node.Mapping) -> Sweep? {
        guard let swept = readSwept(root) else {
            readRest(of: root)
            return nil
        }
        return readPoints(of: swept, root)
    }

    /// Reads what is not swept, for whatever else is wrong with the recipe.
    private mutating func readRest(of root: Node.Mapping) {
        let node = Self.replaceSweeps(in: .mapping(root), at: .outside) { _, mapping in
            guard case .sequence(let list)? = mapping[Self.sweepKey], let first = list.first(where: \.isScalar) else {
                return .scalar(Node.Scalar("0", .implicit, .plain, mapping.mark))
            }
            return first
        }
        guard case .mapping(let rest) = node, let recipe = readPoint(rest, text: text) else { return }
        warnings = recipe.warnings
    }

    /// - Returns: `nil` after complaints.
    private mutating func readSwept(_ root: Node.Mapping) -> [SweptParameter]? {
        var swept: [SweptParameter] = []
        _ = Self.replaceSweeps(in: .mapping(root), at: .outside) { name, mapping in
            if let values = readSweptValues(mapping, name: name) {
                if let index = swept.firstIndex(where: { $0.name == name }) {
                    swept[index].places.append(values)
                } else {
                    swept.append(SweptParameter(name: name, places: [values], line: mapping.line))
                }
            }
            return .scalar(Node.Scalar("0"))
        }
        for parameter in swept { checkPlaces(parameter) }
        guard !swept.isEmpty, !hasProblems else { return nil }
        let total = swept.reduce(1) { $0.multipliedReportingOverflow(by: $1.count).overflow ? .max : $0 * $1.count }
        guard total <= Sweep.limit else {
            complain(
                "the sweeps make \(total) checkpoints, and at most \(Sweep.limit) are possible", at: swept[0].line,
                advice: "list fewer values, or sweep fewer parameters")
            return nil
        }
        return swept
    }

    /// One point for each combination; the last parameter moves fastest.
    private mutating func readPoints(of swept: [SweptParameter], _ root: Node.Mapping) -> Sweep? {
        var points: [Sweep.Point] = []
        var combinations: [[Int]] = [[]]
        for parameter in swept { combinations = combinations.flatMap { chosen in (0..<parameter.count).map { chosen + [$0] } } }
        for chosen in combinations {
            let name = zip(swept, chosen).map { $0.title($1) }.joined(separator: ",")
            guard name.utf8.count <= Sweep.nameLimit else {
                complain(
                    "the name of a checkpoint, '\(name.prefix(40))...', would have \(name.utf8.count) bytes", at: swept[0].line,
                    advice: "sweep a parameter that all models share, or fewer models at once")
                return nil
            }
            var next = swept.map { _ in 0 }
            let node = Self.replaceSweeps(in: .mapping(root), at: .outside) { name, mapping in
                guard let index = swept.firstIndex(where: { $0.name == name }) else { return .mapping(mapping) }
                defer { next[index] += 1 }
                return swept[index].places[next[index]][chosen[index]]
            }
            guard case .mapping(let own) = node, let text = try? Yams.serialize(node: node, width: -1, allowUnicode: true) else {
                complain("cannot be written with the values of '\(name)'", at: swept[0].line, advice: "write one recipe for each")
                return nil
            }
            guard let recipe = readPoint(own, text: text) else { return nil }
            points.append(Sweep.Point(name: name, recipe: recipe))
        }
        return Sweep(text: text, file: file, parameters: swept.map(\.name), points: points)
    }

    private mutating func readSweptValues(_ mapping: Node.Mapping, name: String) -> [Node]? {
        func wrong(_ problem: String, at line: Int) {
            complain(problem, at: line, advice: "write, for example, '\(name): {sweep: [0.1, 0.2, 0.3]}'")
        }
        guard mapping.count == 1, case .sequence(let list)? = mapping[Self.sweepKey], !list.isEmpty else {
            wrong("the sweep of '\(name)' must be a list of values, and nothing else", at: mapping.line)
            return nil
        }
        var seen: Set<String> = []
        for node in list {
            guard let text = node.plainText, !text.isEmpty else {
                wrong("the sweep of '\(name)' has \(node.shown), which is no single value", at: node.line)
                return nil
            }
            guard text.utf8.allSatisfy(Self.isPlainByte) else {
                wrong("the sweep of '\(name)' has '\(text)', which cannot be a part of a folder's name", at: node.line)
                return nil
            }
            guard seen.insert(text).inserted else {
                wrong("the sweep of '\(name)' has the value \(text) twice", at: node.line)
                return nil
            }
        }
        guard name.utf8.allSatisfy(Self.isPlainByte), name.utf8.first != UInt8(ascii: ".") else {
            wrong("'\(name)' cannot be a part of a folder's name", at: mapping.line)
            return nil
        }
        return Array(list)
    }

    private static func isPlainByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "~"):
            true
        default: false
        }
    }

    private mutating func checkPlaces(_ parameter: SweptParameter) {
        guard let other = parameter.places.first(where: { $0.count != parameter.count }) else { return }
        complain(
            "the sweeps of '\(parameter.name)' have \(parameter.count) and \(other.count) values", at: other[0].line,
            advice: "sweeps of one parameter move together: give all of them equally many values")
    }

    // MARK: Places

    /// Where a node stands relative to `parameters:`.
    private enum Place {
        case outside, parameters
        case parameter(String)

        /// Of the value of a key.
        func below(_ key: String) -> Place {
            switch self {
            case .outside: key == "parameters" ? .parameters : .outside
            case .parameters: .parameter(key)
            case .parameter(LayerScale.name): .parameter("\(LayerScale.name).\(key)")
            case .parameter: self
            }
        }
    }

    /// Replaces every `{sweep: ...}` of a parameter, in the order of the recipe.
    private static func replaceSweeps(
        in node: Node, at place: Place, _ replacement: (_ parameter: String, Node.Mapping) -> Node
    ) -> Node {
        switch node {
        case .mapping(var mapping):
            if case .parameter(let name) = place, mapping[sweepKey] != nil { return replacement(name, mapping) }
            for index in mapping.indices {
                let (key, value) = mapping[index]
                mapping[index] = (key, replaceSweeps(in: value, at: place.below(key.plainText ?? ""), replacement))
            }
            return .mapping(mapping)
        case .sequence(var sequence):
            for index in sequence.indices { sequence[index] = replaceSweeps(in: sequence[index], at: place, replacement) }
            return .sequence(sequence)
        default: return node
        }
    }
}

extension Node.Mapping {
    fileprivate var line: Int { mark?.line ?? 1 }
}
