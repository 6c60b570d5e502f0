import Yams

/// YAML 1.1's merge keys: `<<: *defaults` adds the pairs of one or more other maps to this one. The map's own pairs win.
struct MergeKeys {
    private var visited = 0

    /// The node with all merge keys resolved; `nil` if it is too large or merges something that is not a map.
    mutating func resolve(_ node: Node) -> Node? {
        visited += 1
        guard visited <= Aliases.nodeLimit else { return nil }
        switch node {
        case .mapping(let mapping): return resolve(mapping).map { .mapping($0) }
        case .sequence(var sequence):
            for index in sequence.indices {
                guard let item = resolve(sequence[index]) else { return nil }
                sequence[index] = item
            }
            return .sequence(sequence)
        default: return node
        }
    }

    private mutating func resolve(_ mapping: Node.Mapping) -> Node.Mapping? {
        var own: [(Node, Node)] = [], merged: [(Node, Node)] = []
        for (key, value) in mapping where !RepeatedKeys.isIgnored(key) {
            guard let value = resolve(value) else { return nil }
            guard key.isMergeKey else {
                own.append((key, value))
                continue
            }
            let sources: [Node]
            if case .sequence(let list) = value { sources = Array(list) } else { sources = [value] }
            for source in sources {
                guard case .mapping(let pairs) = source else { return nil }
                merged += pairs.map { ($0.key, $0.value) }
            }
        }
        guard !merged.isEmpty else { return Node.Mapping(own, mapping.tag, mapping.style, mapping.mark) }
        // The map's own pairs win, then those merged first.
        var seen = Set(own.compactMap(\.0.plainText))
        for pair in merged where seen.insert(pair.0.plainText ?? "").inserted { own.append(pair) }
        return Node.Mapping(own, mapping.tag, mapping.style, mapping.mark)
    }
}

extension Node {
    fileprivate var isMergeKey: Bool {
        guard case .scalar(let scalar) = self else { return false }
        return scalar.string.hasPrefix("<<") && (scalar.style == .plain || scalar.style == .any)
    }
}
