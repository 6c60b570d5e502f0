import Core

/// How the value of a config's key says something about each layer of a stack. Every form is read as one entry for each layer, so
/// that layers can be chosen, and written back.
enum LayerFact {
    /// A list with one entry for each layer.
    case entries
    /// A string with one letter for each layer, such as Nemotron-H's `hybrid_override_pattern`.
    case letters
    /// `[[entries, times], ...]`, as GPT-Neo's `attention_types`.
    case runs
    /// A list that is repeated to the last layer, as RecurrentGemma's `block_types`.
    case cycle
    /// A list of layers' numbers.
    case numbers
    /// The names of what a vision backbone has: its stem, then a stage for each layer.
    case stages
    /// A list of such names.
    case stageNames
    /// A list of their numbers, of which the first layer's is 1.
    case stageNumbers
    /// An object whose keys are layers' numbers.
    case numbered
    /// How many layers at the beginning are different.
    case first
    /// The number of the last layer before those that are different.
    case through
    /// How many layers at the end are different.
    case last
    /// Every how many layers one is different.
    case period
    /// A list as long as the stack, in a key whose meaning is not known.
    case unknown

    /// - Returns: `nil` for a value that is not about single layers.
    init?(key: String, json: String, layers: Int) {
        let words = key.split(separator: "_").map(String.init)
        if json.first == "[" {
            guard let list = JSONText.elements(of: json), let fact = Self.list(list, words, layers: layers) else { return nil }
            self = fact
        } else if json.first == "{" {
            guard !Self.aboutLayers.isDisjoint(with: words), let members = Self.members(json), !members.isEmpty,
                members.allSatisfy({ Int($0.key).map { (0..<layers).contains($0) } == true })
            else { return nil }
            self = .numbered
        } else if json.first == "\"" {
            guard words.contains("pattern"), Self.string(json)?.count == layers else { return nil }
            self = .letters
        } else if Int(json) != nil {
            guard let fact = Self.count(key, words) else { return nil }
            self = fact
        } else {
            return nil
        }
    }

    private static func list(_ list: [String], _ words: [String], layers: Int) -> LayerFact? {
        guard !words.contains("token"), !words.contains("tokens"), !list.isEmpty else { return nil }
        let numbers = list.compactMap { Int($0) }
        let areAscending =
            numbers.count == list.count && numbers[0] >= 0 && zip(numbers, numbers.dropFirst()).allSatisfy { $0 < $1 }
        let areNumbers = areAscending && numbers.allSatisfy { $0 < layers }
        let isAboutLayers = !aboutLayers.isDisjoint(with: words)
        let key = words.joined(separator: "_")
        // Numbers of layers that are not there do nothing.
        if areAscending, key != "out_indices", words.last.map(numbering.contains) == true || numberKeys.contains(key) {
            return .numbers
        }
        switch key {
        case "stage_names": return list.count == layers + 1 ? .stages : nil
        case "out_features": return list.allSatisfy((1...max(layers, 1)).map(stage).contains) ? .stageNames : nil
        case "out_indices": return areAscending && numbers.allSatisfy { (1...max(layers, 1)).contains($0) } ? .stageNumbers : nil
        default: break
        }
        if list.count == layers {
            // 0, 1, 2, ... to the last are all layers' numbers.
            if areNumbers, layers > 2, isAboutLayers { return .numbers }
            return isAboutLayers || !layerWise.isDisjoint(with: words) ? .entries : .unknown
        }
        if areNumbers, words.last == "layers" || words.last == "blocks" { return .numbers }
        if key == "block_types", list.count < layers { return .cycle }
        return runs(list)?.count == layers ? .runs : nil
    }

    private static let numbering: Set = ["ids", "idx", "idxs", "index", "indexes", "indices"]
    private static let numberKeys: Set = ["moe_layers", "mlp_only_layers", "cross_attention_layers", "dense_layers"]
    private static let aboutLayers: Set = ["layer", "layers", "block", "blocks"]
    /// What configs give layer by layer without saying so.
    private static let layerWise: Set = [
        "heads", "intermediate", "window", "windows", "ffn", "mlp", "rope", "theta", "sparsity", "attn", "attention", "moe",
        "experts", "kv", "types",
    ]

    private static let firstKeys: Set = [
        "first_k_dense_replace", "num_dense_layers", "n_dense_layers", "max_window_layers", "moe_layer_start_index",
    ]

    private static func count(_ key: String, _ words: [String]) -> LayerFact? {
        if firstKeys.contains(key) { return .first }
        if key == "moe_layer_end_index" { return .through }
        if key == "num_kv_shared_layers" { return .last }
        let isAboutLayers = !aboutLayers.union(layerWise).union(["sparse", "expert", "sliding", "global", "cross"])
            .isDisjoint(with: words)
        let isPeriod =
            ["interval", "period", "freq", "frequency", "step", "pattern"].contains(words.last ?? "")
            || words.contains("every") && words.contains("layers")
        return isPeriod && isAboutLayers ? .period : nil
    }

    /// Whether loaders go by a list in `other` instead of the period in `key`.
    func isReplaced(_ key: String, by other: String) -> Bool {
        switch other {
        case "layer_types": key.contains("attn") || key.contains("attention") || key.contains("window")
        case "no_rope_layers": key.contains("rope")
        case "moe_layers": key.contains("moe")
        default: false
        }
    }

    // MARK: Reading and writing

    /// What the value says about each of a stack's layers; `nil` if it does not.
    func entries(of json: String, layers: Int) -> [String]? {
        var list: [String]?
        switch self {
        case .entries: list = JSONText.elements(of: json)
        case .letters: list = Self.string(json)?.map { String($0) }
        case .runs: list = JSONText.elements(of: json).flatMap(Self.runs)
        case .cycle:
            list = JSONText.elements(of: json).flatMap { list in list.isEmpty ? nil : (0..<layers).map { list[$0 % list.count] } }
        case .stages: list = JSONText.elements(of: json).map { Array($0.dropFirst()) }
        case .stageNames:
            let names = JSONText.elements(of: json) ?? []
            list = Self.flags(layers) { names.contains(Self.stage($0 + 1)) }
        case .stageNumbers:
            let numbers = Set((JSONText.elements(of: json) ?? []).compactMap { Int($0) })
            list = Self.flags(layers) { numbers.contains($0 + 1) }
        case .numbers:
            let numbers = Set((JSONText.elements(of: json) ?? []).compactMap { Int($0) })
            list = Self.flags(layers) { numbers.contains($0) }
        case .numbered:
            let members = Dictionary(Self.members(json) ?? [], uniquingKeysWith: { first, _ in first })
            list = (0..<layers).map { members["\($0)"] ?? "" }
        case .through:
            list = Int(json).map { end in Self.flags(layers) { $0 <= (end < 0 ? layers - 1 : end) } }
        case .first: list = Int(json).map { count in Self.flags(layers) { $0 < count } }
        case .last:
            list = Int(json).flatMap { count in
                (0...layers).contains(count) ? Self.flags(layers) { $0 >= layers - count } : nil
            }
        case .period: list = Int(json).flatMap { period in period > 0 ? (0..<layers).map { "\($0 % period)" } : nil }
        case .unknown: list = nil
        }
        return list?.count == layers ? list : nil
    }

    /// The value that says this of the output's layers; `nil` if none does.
    func json(of entries: [String], old: String) -> String? {
        switch self {
        case .cycle:
            let list = JSONText.elements(of: old) ?? []
            let stays = !list.isEmpty && entries.enumerated().allSatisfy { $1 == list[$0 % list.count] }
            return stays ? old : "[\(entries.joined(separator: ", "))]"
        case .entries: return "[\(entries.joined(separator: ", "))]"
        case .letters: return JSONText.quoted(entries.joined())
        case .runs: return "[[[\(entries.joined(separator: ", "))], 1]]"
        case .numbers:
            return "[\(entries.indices.filter { entries[$0] == Self.set }.map(String.init).joined(separator: ", "))]"
        case .first:
            let count = entries.prefix { $0 == Self.set }.count
            guard !entries.dropFirst(count).contains(Self.set) else { return nil }
            // More than there are means all of them.
            return count == entries.count && Int(old) ?? 0 >= count ? old : "\(count)"
        case .stages:
            let stem = JSONText.elements(of: old)?.first
            return stem.map { "[\(([$0] + entries.indices.map { Self.stage($0 + 1) }).joined(separator: ", "))]" }
        case .stageNames, .stageNumbers:
            let set = entries.indices.filter { entries[$0] == Self.set }
            // Whoever reads the stages expects as many.
            guard set.count == JSONText.elements(of: old)?.count else { return nil }
            return "[\(set.map { self == .stageNames ? Self.stage($0 + 1) : "\($0 + 1)" }.joined(separator: ", "))]"
        case .numbered:
            let members = entries.enumerated().filter { !$1.isEmpty }.map { "\(JSONText.quoted("\($0)")): \($1)" }
            return "{\(members.joined(separator: ", "))}"
        case .through:
            let count = entries.prefix { $0 == Self.set }.count
            guard count > 0, !entries.dropFirst(count).contains(Self.set) else { return nil }
            return count == entries.count && Int(old) ?? 0 < 0 ? old : "\(count - 1)"
        case .last:
            let count = entries.reversed().prefix { $0 == Self.set }.count
            return entries.dropLast(count).contains(Self.set) ? nil : "\(count)"
        case .period:
            guard let period = Int(old), period > 0 else { return nil }
            return entries.enumerated().allSatisfy { $1 == "\($0 % period)" } ? old : nil
        case .unknown: return nil
        }
    }

    private static let set = "1"

    private static func stage(_ number: Int) -> String { "\"stage\(number)\"" }

    private static func flags(_ layers: Int, _ isSet: (Int) -> Bool) -> [String] {
        (0..<layers).map { isSet($0) ? set : "0" }
    }

    private static func members(_ json: String) -> [(key: String, value: String)]? {
        (try? JSONText(Array(json.utf8)))?.members([])?.compactMap { member in
            member.key.map { ($0, String(decoding: member.value, as: UTF8.self)) }
        }
    }

    private static func string(_ json: String) -> String? {
        (try? JSONText(Array("{\"text\": \(json)}".utf8)))?.string(["text"])
    }

    /// Runs written out; `nil` for what are no runs.
    private static func runs(_ list: [String]) -> [String]? {
        var all: [String] = []
        for run in list {
            guard let parts = JSONText.elements(of: run), parts.count == 2, let entries = JSONText.elements(of: parts[0]),
                let times = Int(parts[1]),
                (1...4096).contains(times), all.count + times * entries.count <= 1 << 20
            else { return nil }
            for _ in 0..<times { all += entries }
        }
        return all
    }
}
