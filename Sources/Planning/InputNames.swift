import Core
import Recipes

/// What the models of a recipe call the tensors of one of them, where wrappers make their names differ.
struct InputNames {
    /// In byte order.
    let all: [String]
    /// The model's own names, by those of the recipe's models; only where they differ.
    private var renamed: [ExactText: String] = [:]

    init(_ names: [String]) { all = names }

    private init(_ names: [(name: String, own: String)]) {
        all = names.map(\.name).sortedByBytes()
        for (name, own) in names where name != own { renamed[ExactText(name)] = own }
    }

    /// The model's own name of a tensor.
    func own(_ name: String) -> String { renamed.isEmpty ? name : renamed[ExactText(name)] ?? name }

    /// The names without some of them, and with others, which no tensor of the model has by itself.
    func replacing(_ old: Set<ExactText>, with new: some Sequence<ExactText>) -> InputNames {
        var names = InputNames((all.filter { !old.contains(ExactText($0)) } + new.map(\.string)).sortedByBytes())
        names.renamed = renamed
        return names
    }

    /// Names that the models share: those of the model that has all wrappers, else of the primary one.
    ///
    /// A model keeps its names where they would no longer tell its tensors apart.
    /// - Returns: the names of the models whose own differ.
    static func shared(_ models: [InputNames], primary: Int) -> [(model: Int, names: InputNames)] {
        // Fine-tunes have the names of their base.
        guard let first = models.first, models.contains(where: { $0.all != first.all }) else { return [] }
        let wrapped = models.map { WrappedNames($0.all) }
        let isBare = models[primary].all.allSatisfy { TensorName($0).isHead || WrappedNames.core(of: $0) == $0 }
        let leader =
            isBare
            ? models.indices.first { index in
                models[primary].all.contains { own in
                    wrapped[index].closestName(for: own, of: wrapped[primary]).map { $0.utf8.count > own.utf8.count } ?? false
                }
            } ?? primary : primary
        return models.indices.compactMap { index in
            guard index != leader, models[index].all != models[leader].all else { return nil }
            var names = models[index].all.map { own in (name: wrapped[leader].closestName(for: own, of: wrapped[index]), own: own)
            }
            let changes = Set(names.compactMap { pair in pair.name.flatMap { Wrapping(of: pair.own, in: $0) } })
            guard !changes.isEmpty else { return nil }
            // What only this model has is wrapped as the rest.
            if let change = changes.first, changes.count == 1 {
                for place in names.indices where names[place].name == nil {
                    names[place].name = change.applied(to: names[place].own)
                }
            }
            let all = names.map { (name: $0.name ?? $0.own, own: $0.own) }
            return Set(all.map { ExactText($0.name) }).count == all.count ? (index, InputNames(all)) : nil
        }
    }

    /// The first steps of a name and those that another model has in their place.
    private struct Wrapping: Hashable {
        let own: Substring
        let other: Substring

        /// - Returns: `nil` for equal names.
        init?(of own: String, in other: String) {
            guard own != other else { return nil }
            let steps = own.split(separator: "."), others = other.split(separator: ".")
            let common = zip(steps.reversed(), others.reversed()).prefix { $0 == $1 }.map { $0.0.count + 1 }.reduce(0, +)
            // The names of two tensors that are the same have at least their last step in common.
            self.own = own.dropLast(max(0, common - 1))
            self.other = other.dropLast(max(0, common - 1))
        }

        /// - Returns: `nil` for a name that begins otherwise, and for a head, which stands beside what is wrapped.
        func applied(to name: String) -> String? {
            guard name.hasPrefix(own), !TensorName(name).isHead else { return nil }
            return "\(other)\(name.dropFirst(own.count))"
        }
    }
}
