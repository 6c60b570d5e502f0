import Core
import Recipes

/// How the models of a recipe store the experts of a mixture, where they differ: all take the form of the primary model.
struct ExpertForms {
    /// What a model's tensors become.
    struct Conversion {
        /// By the primary's name.
        private(set) var tensors: [ExactText: ExpertTensor] = [:]
        /// Tensors of the model that no longer stand by themselves.
        private(set) var taken: Set<ExactText> = []

        fileprivate mutating func add(_ tensor: ExpertTensor, as name: String, taking names: [String]) {
            tensors[ExactText(name)] = tensor
            taken.formUnion(names.map { ExactText($0) })
        }
    }

    /// A model's tensors, by the names that the models share.
    struct Model {
        let names: [String]
        let tensor: (String) -> InputTensor?
    }

    /// A tensor of all experts.
    private struct Joined {
        let name: String
        let shape: [Int]
    }

    /// By the module's path behind wrappers, then the last step.
    private typealias JoinedModules = [String: [String: Joined]]

    /// One tensor of all experts in one of the models, and what it is in the other.
    private enum Pair {
        case joined(own: Joined, primary: Joined)
        case toJoined([[String]], Joined)
        case toSeparate(Joined, [[String]], rows: Int)
    }

    private let primary: Model
    private let joined: JoinedModules

    init(primary: Model) {
        self.primary = primary
        joined = Self.joined(in: primary)
    }

    /// Leaves out families that interleave the parts of `gate_up_proj`, which have biases, and types without arithmetic of their
    /// own.
    private static func joined(in model: Model) -> JoinedModules {
        var modules: JoinedModules = [:]
        for name in model.names {
            guard let dot = name.utf8.lastIndex(of: UInt8(ascii: ".")), name[..<dot].hasSuffix("experts") else { continue }
            let leaf = String(name[name.utf8.index(after: dot)...])
            guard SeparateExperts.parts[leaf] != nil, let tensor = model.tensor(name), tensor.shape.count == 3,
                !tensor.shape.contains(0), isNumeric(tensor), model.tensor("\(name)_bias") == nil
            else { continue }
            modules[WrappedNames.core(of: String(name[..<dot])), default: [:]][leaf] = Joined(name: name, shape: tensor.shape)
        }
        return modules
    }

    private static func isNumeric(_ tensor: InputTensor) -> Bool { tensor.dtype.isArithmetic && tensor.dtype.bitWidth > 8 }

    /// What a model's tensors become; nothing for a model that stores experts as the primary does.
    func conversion(of model: Model) -> Conversion {
        var conversion = Conversion()
        let own = Self.joined(in: model)
        guard !own.isEmpty || !joined.isEmpty else { return conversion }
        // Many names are read only where the other model has something to compare with them.
        let separate = SeparateExperts(own.isEmpty ? [] : primary.names)
        let ownSeparate = SeparateExperts(joined.isEmpty ? [] : model.names)
        for module in Set(joined.keys).union(own.keys).sorted(by: { $0.precedesInBytes($1) }) {
            let pairs = SeparateExperts.parts.keys.sorted().compactMap { leaf -> (pair: Pair, fits: Fits)? in
                switch (own[module]?[leaf], joined[module]?[leaf]) {
                case (let own?, let other?):
                    let exchanged = [own.shape[0], own.shape[2], own.shape[1]]
                    let fits = Fits(isPlain: own.shape == other.shape, isTransposed: exchanged == other.shape)
                    return (.joined(own: own, primary: other), fits)
                case (nil, let other?):
                    guard let found = Self.parts(of: module, leaf, ownSeparate, in: model) else { return nil }
                    return (.toJoined(found.names, other), Fits(other.shape, found.names, found.shape))
                case (let own?, nil):
                    guard let found = Self.parts(of: module, leaf, separate, in: primary) else { return nil }
                    return (.toSeparate(own, found.names, rows: found.shape[0]), Fits(own.shape, found.names, found.shape))
                case (nil, nil): return nil
                }
            }
            // A square matrix is as the module's other tensors are.
            let isTransposed = pairs.contains { $0.fits.isTransposed && !$0.fits.isPlain }
            for (pair, fits) in pairs where isTransposed ? fits.isTransposed : fits.isPlain {
                Self.add(pair, isTransposed: isTransposed, to: &conversion)
            }
        }
        return conversion
    }

    /// Whether the parts make up a tensor of all experts, as it is or with the last two axes exchanged.
    private struct Fits {
        let isPlain: Bool
        let isTransposed: Bool

        init(isPlain: Bool, isTransposed: Bool) {
            self.isPlain = isPlain
            self.isTransposed = isTransposed
        }

        /// - Parameters:
        ///   - joined: the shape of the tensor of all experts.
        ///   - names: of the parts, then the experts.
        ///   - part: the shape of each.
        init(_ joined: [Int], _ names: [[String]], _ part: [Int]) {
            let stacked = [part[0] * names.count, part[1]], isWhole = joined[0] == names[0].count
            self.init(
                isPlain: isWhole && Array(joined.dropFirst()) == stacked,
                isTransposed: isWhole && joined.dropFirst().reversed() == stacked)
        }
    }

    private static func add(_ pair: Pair, isTransposed: Bool, to conversion: inout Conversion) {
        switch pair {
        case .joined(let own, let other):
            guard isTransposed else { return }
            conversion.add(.transposed(own.name), as: other.name, taking: [own.name])
        case .toJoined(let names, let other):
            conversion.add(
                .joined(names, shape: other.shape, isTransposed: isTransposed), as: other.name, taking: names.flatMap(\.self))
        case .toSeparate(let own, let names, let rows):
            for (part, names) in names.enumerated() {
                for (expert, name) in names.enumerated() {
                    let tensor = ExpertTensor.one(
                        of: own.name, expert: expert, rows: part * rows..<(part + 1) * rows, isTransposed: isTransposed)
                    conversion.add(tensor, as: name, taking: [own.name])
                }
            }
        }
    }

    /// The names of the parts, then the experts, that make up a tensor of all experts, and the shape of each.
    private static func parts(
        of module: String, _ leaf: String, _ experts: SeparateExperts, in model: Model
    ) -> (names: [[String]], shape: [Int])? {
        for names in SeparateExperts.parts[leaf] ?? [] {
            let parts = names.compactMap { experts.names(of: module, part: $0) }
            let tensors = parts.joined().compactMap { model.tensor($0) }, shapes = Set(tensors.map(\.shape))
            guard parts.count == names.count, Set(parts.map(\.count)).count == 1, shapes.count == 1, let shape = shapes.first,
                shape.count == 2, !shape.contains(0), tensors.allSatisfy({ isNumeric($0) })
            else { continue }
            return (parts, shape)
        }
        return nil
    }
}
