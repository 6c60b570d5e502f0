import Checkpoints
import Core

/// Makes a `config.json` follow layers that a recipe chooses: the number of layers of each stack, and whatever the config says
/// about single layers (`LayerFact`). What cannot follow becomes a remark.
struct ConfigLayers {
    let inputs: InputSet
    /// The model whose config is changed.
    let primary: Int
    /// For each stack of which the recipe chooses the layers: where the layers of the output come from.
    let origins: [ExactText: [OutputTensorList.LayerOrigin]]

    /// - Returns: what the user should know.
    func follow(in config: inout JSONText) -> [String] {
        let counts = LayerCounts(config: config, stacks: inputs.inputs[primary].layers.counts)
        var remarks: [String] = []
        for (prefix, origins) in origins.sorted(by: { $0.key < $1.key }) where !isUnchanged(origins, prefix) {
            var homes = counts.homes(of: prefix)
            if homes.isEmpty, let section = listSection(of: prefix, in: config) {
                homes = [LayerCounts.Home(section: section, keys: [])]
            }
            if homes.isEmpty {
                remarks.append(
                    "the output has \(origins.count) layers in \(prefix), but no key of config.json is known to count the "
                        + "\(counts.stacks[prefix] ?? 0) of '\(inputs.inputs[primary].reference)' alone; set it by hand")
            }
            if let rival = counts.rival(of: prefix) {
                let keys = homes[0].keys.map { "'\((homes[0].section + [$0]).joined(separator: "."))'" }.joined(separator: ", ")
                remarks.append("config.json's \(keys) may count the layers of \(rival) and not those of \(prefix): check it")
            }
            for home in homes {
                for key in home.keys { config.replace(home.section + [key], withJSON: "\(origins.count)") }
                let members = config.members(home.section) ?? [], keys = members.compactMap(\.key)
                for member in members {
                    guard let key = member.key, !home.keys.contains(key), !counts.isForeign(key, to: prefix) else { continue }
                    let remark = follow(home.section + [key], besides: keys, prefix, in: &config) {
                        counts.hasCounterpart(prefix) && (home.section + [key]).allSatisfy(LayerCounts.isOfNoPart)
                    }
                    if let remark { remarks.append(remark) }
                }
            }
        }
        return remarks
    }

    /// Parts of the model that lie beside the layers, one for each of those that a list numbers, such as Qwen3-VL's
    /// `deepstack_merger_list`, do not follow.
    private func remarkOnParts(_ name: String, old: String, new: String, _ prefix: ExactText) -> String? {
        let marks = [old, new].map { JSONText.elements(of: $0)?.count ?? 0 }
        guard marks[0] != marks[1], name.contains("index") else { return nil }
        let parts = inputs.inputs[primary].layers.counts.filter { $0.key != prefix && $0.value == marks[0] }.keys.sorted()
        return parts.first.map { part in
            "\(name) numbers \(marks[0]) layers of \(prefix), and \(part) has a part for each; the output has "
                + "\(marks[1]) of these layers and all \(marks[0]) parts, and will not load; keep each of these layers once"
        }
    }

    /// The section whose list of kinds is the only count of the layers.
    private func listSection(of prefix: ExactText, in config: JSONText) -> [String]? {
        let keys = ["layer_types", "layers_block_type", "hybrid_override_pattern"]
        return [[], ["text_config"]].first { section in
            // A count that is another stack's as well says that the list is, too.
            guard !(config.members(section) ?? []).contains(where: { $0.key.flatMap(ConfigWords.rolesOfCount) != nil }) else {
                return false
            }
            return keys.contains { key in
                guard let json = config.json(section + [key]), let count = inputs.inputs[primary].layers.counts[prefix] else {
                    return false
                }
                let fact = LayerFact(key: key, json: json, layers: count)
                return fact == .entries || fact == .letters
            }
        }
    }

    private func isUnchanged(_ origins: [OutputTensorList.LayerOrigin], _ prefix: ExactText) -> Bool {
        origins.count == inputs.inputs[primary].layers.counts[prefix]
            && origins.enumerated().allSatisfy { $1.model == primary && $1.layer == $0 }
    }

    /// Makes one key follow, if it is about layers.
    ///
    /// - Parameters:
    ///   - keys: of the same section.
    ///   - isAmbiguous: whether the key may be about the layers of another stack with as many.
    /// - Returns: what the user should know.
    private func follow(
        _ path: [String], besides keys: [String], _ prefix: ExactText, in config: inout JSONText, isAmbiguous: () -> Bool
    ) -> String? {
        guard let origins = origins[prefix], let key = path.last, let old = config.json(path),
            let count = inputs.inputs[primary].layers.counts[prefix], let fact = LayerFact(key: key, json: old, layers: count)
        else { return nil }
        let value = old.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        let name = "config.json's '\(path.joined(separator: "."))' (\(value.count > 60 ? value.prefix(60) + "..." : value))"
        guard fact != .unknown else {
            return "\(name) has \(count) entries, as many as \(prefix) had layers, and is left as it is: check whether it should "
                + "follow the output's \(origins.count) layers"
        }
        var lists: [Int: [String]] = [:]
        for model in Set(origins.map(\.model)).union([primary]) {
            let input = inputs.inputs[model]
            guard let json = input.checkpoint.config?.json(path), let own = input.layers.counts[prefix],
                let list = fact.entries(of: json, layers: own)
            else {
                return "\(name) cannot follow the layers, because the config.json of '\(input.reference)' does not have it for "
                    + "each of its layers; set it by hand"
            }
            lists[model] = list
        }
        let entries = origins.compactMap { origin in
            lists[origin.model].flatMap { $0.indices.contains(origin.layer) ? $0[origin.layer] : nil }
        }
        guard entries.count == origins.count, entries != lists[primary] else { return nil }
        if isAmbiguous() {
            return "\(name) may be about the encoder or the decoder, and is left as it is: check it"
        }
        guard let new = fact.json(of: entries, old: old) else {
            if keys.contains(where: { fact.isReplaced(key, by: $0) }) { return nil }
            return "\(name) does not describe the order of the output's layers; keep each layer's place in it, or set it by hand"
        }
        if new != old { config.replace(path, withJSON: new) }
        return fact == .numbers ? remarkOnParts(name, old: old, new: new, prefix) : nil
    }
}
