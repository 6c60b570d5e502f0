import Core
import Yams

/// Recipes that make a task-vector store.
extension RecipeReader {
    private static let storeKeys = ["quantize", "sparsify", "base_model", "models", "extend"]
    static let filterKeys = ["include", "exclude", "min_rank", "rest"]
    private static let quantizeKeys = ["bits", "group", "budget", "sensitivity", "floor", "thin", "masks", "error_correction"]
    private static let schemes = ["tvq", "rtvq", "bitdelta", "axis_sign"]

    /// Whether the recipe describes a store.
    static func makesStore(_ root: Node.Mapping) -> Bool { root["quantize"] != nil || root["sparsify"] != nil }

    mutating func readStore(_ root: Node.Mapping) -> StoreRecipe? {
        let key = root["quantize"] != nil ? "quantize" : "sparsify"
        checkKeys(of: root, known: Self.storeKeys + ["merge_method"], place: "a recipe with '\(key)'")
        if let other = root["sparsify"], key == "quantize" {
            complain(
                "has both 'quantize' and 'sparsify'", at: other.line,
                advice: "keep one; the values of a sparse store can be quantized with 'sparsify: {values: {bits: 4}}'")
        }
        if let method = root["merge_method"] {
            complain(
                "has both '\(key)' and 'merge_method'", at: method.line,
                advice: "make the store first, then merge its tasks with models such as './store#TASK'")
        }
        guard let node = root[key], case .mapping(let mapping) = node else {
            complain(
                "'\(key)' must be a map", at: root[key]?.line ?? 1,
                advice: key == "quantize"
                    ? "write, for example, 'quantize: {scheme: tvq, bits: 3}'"
                    : "write, for example, 'sparsify: {method: magnitude, density: 0.2}'")
            return nil
        }
        let tasks = readTasks(root)
        let kind = key == "quantize" ? readQuantization(mapping) : readSparsity(mapping, tasks: tasks.count)
        // The paper encodes tensors of rank 2 and higher. With a budget or without quantization, all tensors are encoded.
        let filter = readFilter(mapping, leastRank: key == "quantize" && mapping["budget"] == nil ? 2 : 0)
        let rest = readFloat(mapping, "rest")
        var base: Located<ModelReference>?
        if let node = root["base_model"] ?? misspelled("base_model", in: root, known: Self.storeKeys) {
            base = readReference(node)
            storeBase = base
        } else {
            complain("has no 'base_model'", at: node.line, advice: "add 'base_model: PATH': task vectors are differences from it")
        }
        guard let base, let kind else { return nil }
        return StoreRecipe(
            text: text, file: file, kind: kind, line: node.line, baseModel: base, tasks: tasks, filter: filter,
            rest: rest ?? .f32,
            extends: root["extend"].flatMap { node in node.plainText.map { Located($0, line: node.line) } }, warnings: warnings)
    }

    // MARK: Tasks

    private mutating func readTasks(_ root: Node.Mapping) -> [StoreRecipe.Task] {
        let node = root["models"] ?? misspelled("models", in: root, known: Self.storeKeys)
        guard case .sequence(let list)? = node, !list.isEmpty else {
            complain(
                "has no models", at: node?.line ?? 1,
                advice: "add a 'models:' list with entries such as '- model: PATH'")
            return []
        }
        var tasks: [StoreRecipe.Task] = []
        for entry in list {
            guard let (mapping, node) = readTaskKeys(entry) else {
                complain("a model must be a map", at: entry.line, advice: "write '- model: PATH', optionally with 'name: TASK'")
                continue
            }
            guard let model = readReference(node) else { continue }
            fineTunes.append(model)
            let name = mapping["name"]?.plainText ?? Self.taskName(of: model.value)
            guard TaskName.isValid(name) else {
                complain(
                    "the task name '\(name)' is not a valid file name", at: mapping["name"]?.line ?? model.line,
                    advice: "add 'name: TASK', using letters, digits, '-', '_' and '.'")
                continue
            }
            if tasks.contains(where: { $0.name == name }) {
                complain(
                    "the task '\(name)' is listed twice", at: entry.line,
                    advice: "rename one of them with 'name: TASK'")
                continue
            }
            tasks.append(StoreRecipe.Task(model: model, name: name))
        }
        return tasks
    }

    private mutating func readTaskKeys(_ entry: Node) -> (Node.Mapping, model: Node)? {
        guard case .mapping(let mapping) = entry else { return nil }
        let known = ["model", "name"]
        checkKeys(of: mapping, known: known, place: "a model")
        return (mapping["model"] ?? misspelled("model", in: mapping, known: known)).map { (mapping, $0) }
    }

    /// The last component of the model's path, and of the adapter's.
    private static func taskName(of model: ModelReference) -> String {
        [model.model.path, model.adapter?.path].compactMap(\.self)
            .map { $0.split(separator: "/").last.map(String.init) ?? $0 }.joined(separator: "-")
    }

    // MARK: Quantizing

    private mutating func readQuantization(_ mapping: Node.Mapping) -> StoreRecipe.Kind? {
        checkKeys(of: mapping, known: ["scheme"] + Self.quantizeKeys + Self.filterKeys, place: "'quantize'")
        let scheme = mapping["scheme"]?.plainText ?? "tvq"
        guard Self.schemes.contains(scheme) else {
            complain(
                "unknown scheme '\(scheme)'", at: mapping["scheme"]?.line ?? 1,
                advice: Suggestion.advice(for: scheme, in: Self.schemes, otherwise: "write one of"))
            return nil
        }
        if !scheme.hasSuffix("tvq") { return readSigns(scheme, mapping) }
        let isResidual = scheme == "rtvq"
        if let node = mapping["error_correction"], !isResidual || mapping["budget"] != nil {
            complain(
                "'error_correction' applies only to 'rtvq' with 'bits'", at: node.line,
                advice:
                    "remove it: \(isResidual ? "with a budget, offsets always correct errors" : "'tvq' has no shared vector")")
        }
        if let node = mapping["budget"] {
            for key in ["bits", "group"] {
                if let other = mapping[key] {
                    complain(
                        "has both 'budget' and '\(key)'", at: other.line, advice: "remove '\(key)': the budget determines it")
                }
            }
            for key in ["thin", "masks"] where isResidual {
                guard let other = mapping[key], other.scalarValue?.asBool != false else { continue }
                complain(
                    "'\(key)' does not apply to 'rtvq'", at: other.line,
                    advice: "remove it, or use 'scheme: tvq': what is dropped from an offset is missing in the sum")
            }
            return readBudget(node, mapping).map { .quantize(.budget($0, isResidual: isResidual)) }
        }
        for key in ["sensitivity", "floor", "thin", "masks"] {
            if let node = mapping[key] {
                complain(
                    "'\(key)' applies only with a budget", at: node.line, advice: "add 'budget: 2.25 bits', or remove '\(key)'")
            }
        }
        let group = readGroup(mapping)
        guard let bits = mapping["bits"] else {
            complain(
                "has neither 'bits' nor 'budget'", at: mapping.first?.key.line ?? 1,
                advice: isResidual ? "add 'bits: {base: 3, offset: 2}'" : "add 'bits: 4'")
            return nil
        }
        guard isResidual else {
            return readBits(bits, "bits").flatMap { bits in
                group.map { .quantize(.plain(StoreRecipe.Grid(bits: bits, group: $0))) }
            }
        }
        guard case .mapping(let pair) = bits, let base = pair["base"], let offset = pair["offset"] else {
            complain(
                "'rtvq' needs bits for the base and for the offsets", at: bits.line, advice: "write 'bits: {base: 3, offset: 2}'")
            return nil
        }
        checkKeys(of: pair, known: ["base", "offset"], place: "'bits'")
        let corrects = readFlag(mapping, "error_correction") ?? true
        guard let baseBits = readBits(base, "base"), let offsetBits = readBits(offset, "offset"), let group else { return nil }
        return .quantize(
            .residual(
                base: StoreRecipe.Grid(bits: baseBits, group: group), offset: StoreRecipe.Grid(bits: offsetBits, group: group),
                correctsErrors: corrects))
    }

    /// Schemes of one bit, which leave nothing to choose.
    private mutating func readSigns(_ scheme: String, _ mapping: Node.Mapping) -> StoreRecipe.Kind {
        for key in Self.quantizeKeys {
            if let node = mapping[key] {
                complain(
                    "'\(key)' does not apply to '\(scheme)', which stores signs", at: node.line,
                    advice: "remove it, or use 'scheme: tvq'")
            }
        }
        return .quantize(.signs(isPerAxis: scheme == "axis_sign"))
    }

    mutating func readBits(_ node: Node, _ key: String) -> Int? {
        if case .integer(let bits)? = node.scalarValue, (1...8).contains(bits) { return bits }
        complain(
            "'\(key)' is \(node.shown); it must be an integer from 1 to 8", at: node.line,
            advice: "write, for example, '\(key): 3'")
        return nil
    }

    mutating func readGroup(_ mapping: Node.Mapping) -> StoreRecipe.Group? {
        guard let node = mapping["group"] else { return .tensor }
        switch node.scalarValue {
        case .string("tensor"): return .tensor
        case .string("row"): return .row
        case .integer(let length) where (4...13).contains { 1 << $0 == length }: return .group(length)
        default:
            complain(
                "'group' must say which elements share a scale", at: node.line,
                advice: "write 'tensor', 'row', or a power of two from 16 to 8192, such as 128")
            return nil
        }
    }

    private mutating func readBudget(_ node: Node, _ mapping: Node.Mapping) -> StoreRecipe.Budget? {
        let text = (node.plainText ?? "").trimmingCharacters { $0 == " " }
        var amount: StoreRecipe.Budget.Amount?
        if text.hasSuffix("%"), let percent = Double(text.dropLast().trimmingCharacters { $0 == " " }), percent > 0,
            percent <= 100
        {
            amount = .share(percent / 100)
        } else {
            let number = text.hasSuffix("bits") ? text.dropLast(4).trimmingCharacters { $0 == " " } : text
            if let bits = Double(number), bits > 0, bits <= 32 { amount = .bits(bits) }
        }
        guard let amount else {
            complain(
                "'budget' must be a number of bits per parameter, or a share of the fine-tunes' size", at: node.line,
                advice: "write, for example, 'budget: 2.25 bits' or 'budget: 8%'")
            return nil
        }
        var sensitivity = StoreRecipe.Budget.Sensitivity.balanced
        switch mapping["sensitivity"]?.plainText {
        case nil, "balanced"?: break
        case "relative"?: sensitivity = .relative
        case "absolute"?: sensitivity = .absolute
        case let path?: sensitivity = .file(path)
        }
        var floor: Double?
        if let node = mapping["floor"] {
            guard let bits = node.scalarValue?.asDouble, (0...8).contains(bits) else {
                complain("'floor' is \(node.shown); it must be from 0 to 8", at: node.line, advice: "write a number such as 1.5")
                return nil
            }
            floor = bits
        }
        let hasCommonMasks = readsOther(
            mapping, "masks", "own", "common", line: node.line, advice: "write 'common' for tasks to be merged by 'ties'")
        return StoreRecipe.Budget(
            amount: amount, sensitivity: sensitivity, floor: floor, thins: readFlag(mapping, "thin"),
            hasCommonMasks: hasCommonMasks, line: node.line)
    }

    // MARK: Filters

    private mutating func readFilter(_ mapping: Node.Mapping, leastRank: Int) -> StoreRecipe.Filter {
        var rank = leastRank
        if let node = mapping["min_rank"] {
            if case .integer(let number)? = node.scalarValue, number >= 0 {
                rank = number
            } else {
                complain("'min_rank' must be a number of dimensions", at: node.line, advice: "write an integer such as 2")
            }
        }
        return StoreRecipe.Filter(include: readNames(mapping, "include"), exclude: readNames(mapping, "exclude"), leastRank: rank)
    }

    private mutating func readNames(_ mapping: Node.Mapping, _ key: String) -> [Located<String>] {
        guard let node = mapping[key], !node.isNull else { return [] }
        let list: [Node] = if case .sequence(let sequence) = node { Array(sequence) } else { [node] }
        let names = list.compactMap { node in node.plainText.map { Located($0, line: node.line) } }
        if names.count < list.count {
            complain(
                "'\(key)' must be a list of parts of tensor names", at: node.line,
                advice: "write, for example, '\(key): [mlp, attn]'")
        }
        return names
    }

    mutating func readFloat(_ mapping: Node.Mapping, _ key: String) -> DType? {
        guard let node = mapping[key], !node.isNull else { return nil }
        // Differences are small; float8 would round most of them to zero.
        let types = Recipe.dtypes.filter { (16...32).contains($0.value.bitWidth) }
        if let dtype = types[node.plainText ?? ""] { return dtype }
        complain(
            "'\(key)' is \(node.shown); it must be a floating-point type", at: node.line,
            advice: Suggestion.advice(for: node.plainText ?? "", in: types.keys.sorted(), otherwise: "write one of"))
        return nil
    }

    /// Whether a key has the second of two words; the first is what holds without the key. Another word is complained about.
    ///
    /// - Parameter line: of the complaint where the key has none.
    mutating func readsOther(
        _ mapping: Node.Mapping, _ key: String, _ usual: String, _ other: String, line: Int, advice: String
    ) -> Bool {
        let word = mapping[key]?.plainText ?? usual
        if ![usual, other].contains(word) {
            complain("'\(key)' must be '\(usual)' or '\(other)'", at: mapping[key]?.line ?? line, advice: advice)
        }
        return word == other
    }

    private mutating func readFlag(_ mapping: Node.Mapping, _ key: String) -> Bool? {
        guard let node = mapping[key] else { return nil }
        if let flag = node.scalarValue?.asBool { return flag }
        complain("'\(key)' must be true or false", at: node.line, advice: "write '\(key): true' or '\(key): false'")
        return nil
    }
}

extension StringProtocol {
    fileprivate func trimmingCharacters(_ isTrimmed: (Character) -> Bool) -> String {
        String(drop(while: isTrimmed).reversed().drop(while: isTrimmed).reversed())
    }
}
