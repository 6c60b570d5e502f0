import Checkpoints
import Core
import Recipes

/// Which of the model's tensors a module of the adapter is.
extension AdapterMatcher {
    /// What a change is made to.
    enum Owner {
        /// Tensors of the model, one on top of the other.
        case tensors([OwnedTensor])
        /// A head that the model does not have by itself.
        case head(TiedHead)

        init(_ name: String) { self = .tensors([OwnedTensor(name: name)]) }

        /// Whether it is several of the model's tensors.
        var isStacked: Bool { if case .tensors(let tensors) = self { tensors.count > 1 } else { false } }
    }

    /// A tensor of the model, or some of its rows.
    struct OwnedTensor {
        let name: String
        /// The rows of the tensor that are meant; `nil` for the whole tensor.
        var rows: Range<Int>?
        /// The rows of the change that belong here; `nil` for all.
        var changeRows: Range<Int>?
    }

    /// What a tensor of the loaded model is in the checkpoint.
    func loadedTensor(_ module: String, _ leaf: String) -> LoadedTensors.Tensor? {
        guard let loaded, let name = loaded.names.closestName(for: "\(module).\(leaf)", of: ownNames) else { return nil }
        return loaded.tensors.tensor(named: name)
    }

    /// The name of the model's tensor, if it is one by itself.
    func target(_ module: String, _ leaf: String) -> String? {
        switch loadedTensor(module, leaf) {
        case .whole(let name)?: return name
        case .some: return nil
        case nil: break
        }
        if let name = names.closestName(for: "\(module).\(leaf)", of: ownNames) { return name }
        // In a masked language model, the decoder's bias is that of the head around it.
        let decoder = ".decoder"
        guard leaf == "bias", module.hasSuffix(decoder) else { return nil }
        return target(String(module.dropLast(decoder.count)), leaf)
    }

    func isTiedHead(_ module: String, _ leaf: String) -> Bool {
        tied != nil && TensorName("\(module).\(leaf)").isHead && target(module, leaf) == nil
    }

    /// - Returns: `nil` for what is no tensor of the model, and for a tensor of experts.
    func owner(_ module: String, _ leaf: String) -> Owner? {
        switch loadedTensor(module, leaf) {
        case .part(let name, let index, let count)?:
            guard let rows = modelShape(name).first, rows % count == 0 else { return nil }
            let own = rows / count
            return .tensors([OwnedTensor(name: name, rows: index * own..<(index + 1) * own)])
        case .stacked(let names)?:
            guard Set(names.map { Array(modelShape($0).dropFirst()) }).count == 1 else { return nil }
            var tensors: [OwnedTensor] = [], row = 0
            for name in names {
                guard let rows = modelShape(name).first else { return nil }
                tensors.append(OwnedTensor(name: name, changeRows: row..<row + rows))
                row += rows
            }
            return .tensors(tensors)
        default: break
        }
        if let name = target(module, leaf) { return Owner(name) }
        guard let tied, isTiedHead(module, leaf) else { return nil }
        return partsTiedHead ? .head(tied) : Owner(tied.embedding)
    }

    func owner(_ module: String, _ leaf: String, of entry: TensorEntry) throws(TesseraError) -> Owner {
        guard let owner = owner(module, leaf) else { throw missing("\(module).\(leaf)", for: entry) }
        return owner
    }

    func shape(of owner: Owner) -> [Int] {
        switch owner {
        case .head(let tied): return Self.shape(after: headChanges, of: modelShape(tied.embedding))
        case .tensors(let tensors):
            let shapes = tensors.map { tensor in
                let shape = Self.shape(after: changes[ExactText(tensor.name)] ?? [], of: modelShape(tensor.name))
                return tensor.rows.map { [$0.count] + shape.dropFirst() } ?? shape
            }
            let rows = shapes.compactMap(\.first).reduce(0, +)
            return (shapes.first?.isEmpty ?? true) ? [] : [rows] + shapes[0].dropFirst()
        }
    }

    func modelShape(_ name: String) -> [Int] { model.tensor(named: name)?.entry.shape ?? [] }

    private static func shape(after changes: [AdapterChange], of shape: [Int]) -> [Int] {
        changes.reduce(shape) { if case .replaced(let entry) = $1 { entry.shape } else { $0 } }
    }

    func missing(_ name: String, for entry: TensorEntry) -> TesseraError {
        let place = AdapterKey(entry.name)?.place.module ?? ""
        if case .made(let sources, let operations)? = loadedTensor(place, "weight") ?? loadedTensor(place, "bias") {
            return problem(
                "transformers makes '\(name)' of '\(sources.first ?? "")' in a way that is not known here (\(operations))", entry,
                advice: Self.mergeFirst)
        }
        if config.isSaved(place) {
            return problem(
                "the model has no tensor '\(name)' for it, which the adapter trained as a whole", entry,
                advice: "load the model with its module, such as a classifier's head (AutoModelFor…), save it, and name that")
        }
        return problem(
            "the model has no tensor '\(name)' for it", entry,
            advice: "\(Self.otherModel); if transformers gives the model's modules other names when it loads it, "
                + Self.mergeFirst)
    }

    static let otherModel = "check that the adapter belongs to this model"
    static let mergeFirst = "merge the adapter into its model with PEFT's merge_and_unload(), and name the result"
}
