import Core

/// Where a `config.json` says how many layers each stack of the model has, told by the words in the names of both: the layers of
/// `model.decoder.layers` are counted by `decoder_layers`, those of `model.visual.blocks` by `vision_config.depth`.
struct LayerCounts {
    /// An object of the config, and its keys that count the layers of one stack.
    struct Home: Hashable {
        let section: [String]
        var keys: [String]
    }

    private struct Candidate {
        let section: [String]
        let key: String
        let roles: Set<String>
        /// The roles that the key itself names.
        let keyRoles: Set<String>
        let value: Int
    }

    /// Layers by the text before their number.
    let stacks: [ExactText: Int]
    private let candidates: [Candidate]
    /// Every role for which the config has a section of its own.
    private let sectionRoles: Set<String>

    init(config: JSONText, stacks: [ExactText: Int]) {
        self.stacks = stacks
        var candidates: [Candidate] = [], sectionRoles: Set<String> = []
        for section in config.sections {
            let roles = ConfigWords.roles(of: section.flatMap { ConfigWords.words($0) })
            sectionRoles.formUnion(roles)
            for member in config.members(section) ?? [] {
                guard let key = member.key, let value = Int(String(decoding: member.value, as: UTF8.self)),
                    let keyRoles = ConfigWords.rolesOfCount(key)
                else { continue }
                let all = ConfigWords.roles(of: (section + [key]).flatMap { ConfigWords.words($0) })
                candidates.append(Candidate(section: section, key: key, roles: all, keyRoles: keyRoles, value: value))
            }
        }
        self.candidates = candidates
        self.sectionRoles = sectionRoles
    }

    /// Where the layers of the stack are counted; empty when the config does not say their number in a key that is known.
    func homes(of prefix: ExactText) -> [Home] {
        let roles = roles(of: prefix), modalities = roles.intersection(ConfigWords.modalities)
        let fitting = candidates.filter { fits($0, roles) }
        func score(_ candidate: Candidate) -> (Int, Int) {
            // The whole of an audio or vision tower may be called its encoder.
            let more = candidate.roles.subtracting(roles).subtracting(modalities.isEmpty ? [] : ["encoder"])
            return (candidate.roles.intersection(roles).count, -more.count)
        }
        guard let best = fitting.map(score).max(by: <), let count = stacks[prefix] else { return [] }
        var chosen = fitting.filter { score($0) == best && $0.value == count }
        if hasCounterpart(prefix), chosen.allSatisfy({ $0.roles.isDisjoint(with: ["encoder", "decoder"]) }),
            roles.contains("decoder") || !candidates.contains(where: { $0.roles.contains("decoder") })
        {
            // One number for encoder and decoder.
            chosen = []
        }
        if roles.contains("encoder") {
            // A count without a role is a second name of the encoder's: BART's num_hidden_layers is its encoder_layers.
            let sections = Set(chosen.map(\.section))
            chosen += fitting.filter {
                $0.keyRoles.isEmpty && $0.value == count && sections.contains($0.section) && score($0) != best
            }
        }
        var homes: [Home] = []
        for candidate in chosen {
            if let known = homes.firstIndex(where: { $0.section == candidate.section }) {
                homes[known].keys.append(candidate.key)
            } else {
                homes.append(Home(section: candidate.section, keys: [candidate.key]))
            }
        }
        return homes
    }

    /// Whether the stack is the decoder's or the encoder's, and the same part of the model has the other as well. The encoder of
    /// a vision tower is no counterpart of a text model's decoder.
    func hasCounterpart(_ prefix: ExactText) -> Bool {
        let roles = roles(of: prefix)
        guard let own = Self.sides.first(where: { roles.contains($0) }) else { return false }
        func part(_ roles: Set<String>) -> Set<String> { roles.subtracting(Self.sides + ["text"]) }
        return stacks.keys.contains { other in
            let others = self.roles(of: other)
            return !others.contains(own) && !others.isDisjoint(with: Self.sides) && part(others) == part(roles)
        }
    }

    private static let sides = ["encoder", "decoder"]

    /// Whether the stack is of a text model, by its name or because its name tells no part.
    func isOfText(_ prefix: ExactText) -> Bool { roles(of: prefix).isSubset(of: ["text"]) }

    /// Whether the stack is of a tower for images or sound.
    func isOfTower(_ prefix: ExactText) -> Bool { !roles(of: prefix).isDisjoint(with: ["vision", "audio"]) }

    /// Whether a key, by its own words, may be about any part.
    static func isOfNoPart(_ key: String) -> Bool { ConfigWords.parts.isDisjoint(with: ConfigWords.words(key)) }

    /// Whether a key, by its own words, is about another part of the model than the stack.
    func isForeign(_ key: String, to prefix: ExactText) -> Bool {
        let own = ConfigWords.roles(of: ConfigWords.words(key)).intersection(ConfigWords.parts)
        let roles = roles(of: prefix)
        return !own.subtracting(roles.isDisjoint(with: ConfigWords.modalities) ? ["text"] : []).isSubset(of: roles)
    }

    /// Whether the stacks are parts of the same layers, as XLM's attentions, norms and networks are: they stand side by side,
    /// there are as many of each, and the config counts layers only once.
    func isOneStack(_ prefixes: [ExactText]) -> Bool {
        let parents = Set(prefixes.map { $0.string.split(separator: ".").dropLast() })
        return prefixes.count > 1 && parents.count == 1 && Set(prefixes.map { stacks[$0] }).count == 1 && candidates.count == 1
    }

    /// Another stack whose layers the same keys may count.
    func rival(of prefix: ExactText) -> ExactText? {
        let homes = homes(of: prefix)
        guard !homes.isEmpty else { return nil }
        return stacks.keys.filter { $0 != prefix && self.homes(of: $0) == homes && !isOneStack([prefix, $0]) }.min()
    }

    /// The roles that a stack's name tells, the outer of encoder and decoder if it names both.
    private func roles(of prefix: ExactText) -> Set<String> {
        var roles: Set<String> = []
        for word in prefix.string.split(separator: ".").flatMap({ ConfigWords.words(String($0)) }) {
            guard ConfigWords.parts.contains(word) || sectionRoles.contains(word) else { continue }
            if word == "decoder" && roles.contains("encoder") || word == "encoder" && roles.contains("decoder") { continue }
            roles.insert(word)
        }
        // An encoder beside no tower of the name that the config uses is the tower.
        let towers = sectionRoles.intersection(["vision", "audio"])
        if roles == ["encoder"], towers.count == 1, !stacks.keys.contains(where: { Self.namesTower($0) }) {
            roles.formUnion(towers)
        }
        return roles
    }

    private static func namesTower(_ prefix: ExactText) -> Bool {
        let words = prefix.string.split(separator: ".").flatMap { ConfigWords.words(String($0)) }
        return !Set(words).isDisjoint(with: ["vision", "audio"])
    }

    private func fits(_ candidate: Candidate, _ stack: Set<String>) -> Bool {
        let modalities = stack.subtracting(["text", "encoder", "decoder"])
        // What has a section of its own is counted there.
        guard modalities.intersection(sectionRoles).isSubset(of: candidate.roles) else { return false }
        return candidate.roles.subtracting(stack).allSatisfy { role in
            switch role {
            case "text": modalities.isSubset(of: ["thinker"])
            case "encoder": !stack.contains("decoder")
            case "decoder": !stack.contains("encoder") && modalities.isEmpty
            default: false
            }
        }
    }
}

/// The words of names in models and configs.
enum ConfigWords {
    static let modalities: Set = ["vision", "audio", "thinker", "talker"]
    static let parts: Set = modalities.union(["text", "encoder", "decoder"])

    private static let synonyms = [
        "language": "text", "llm": "text", "visual": "vision", "vit": "vision", "image": "vision", "video": "vision",
        "speech": "audio",
    ]
    /// Words that tell nothing about the part.
    private static let plain: Set = [
        "model", "config", "dict", "transformer", "tower", "backbone", "h", "layer", "layers", "block", "blocks", "num", "n",
        "hidden", "depth",
    ]
    /// What is left of a key that counts layers when the words of its part are gone.
    private static let counts: Set = [
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_layer", "layers", "depth", "num_blocks", "n_blocks",
        "num_hidden_blocks",
    ]

    static func words(_ name: String) -> [String] {
        name.split(separator: "_").map { synonyms[String($0)] ?? String($0) }
    }

    /// Of encoder and decoder the last one counts: `decoder.encoder_layers`.
    static func roles(of words: [String]) -> Set<String> {
        var roles = Set(words).subtracting(plain)
        if let last = words.last(where: { $0 == "encoder" || $0 == "decoder" }) {
            roles.subtract(["encoder", "decoder"])
            roles.insert(last)
        }
        return roles
    }

    /// The parts named by a key that counts layers; `nil` for any other key.
    static func rolesOfCount(_ key: String) -> Set<String>? {
        let words = words(key), roles = Set(words).intersection(parts)
        return counts.contains(words.filter { !roles.contains($0) }.joined(separator: "_")) ? roles : nil
    }
}

extension JSONText {
    /// The paths of the objects in which configs describe parts of a model: the whole, and objects within it.
    var sections: [[String]] { sections(below: []) }

    private func sections(below path: [String]) -> [[String]] {
        let inner = path.count < 3 ? members(path) ?? [] : []
        return [path]
            + inner.flatMap { member -> [[String]] in
                guard let key = member.key, key != "quantization_config", member.value.first == UInt8(ascii: "{") else {
                    return []
                }
                return sections(below: path + [key])
            }
    }
}
