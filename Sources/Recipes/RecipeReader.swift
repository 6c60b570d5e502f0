import Core
import Yams

/// Reads one recipe and collects all of its problems.
struct RecipeReader {
    let text: String
    let file: String
    private var problems: [TesseraError] = []
    var warnings: [TesseraError] = []
    /// What adapters without a model of their own are folded into.
    private(set) var baseModel: ModelReference?
    /// What could be read, although other things could not: see `RecipeReading`.
    private var draft: Recipe?
    /// Whether every model that the recipe names could be read.
    var hasAllModels = true
    var fineTunes: [Located<ModelReference>] = []
    var storeBase: Located<ModelReference>?

    private static let byteLimit = 1 << 20
    private static let topLevelKeys = [
        "merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype",
    ]

    static let allKeys = topLevelKeys + tokenizerKeys + [missingKey, stackKey, outputKey]

    init(text: String, file: String) {
        self.text = text
        self.file = file
    }

    /// - Throws: `Problems` for a text that is no map of YAML.
    mutating func readJob() throws(Problems) -> RecipeReading {
        let root = try compose()
        let recipe: JobRecipe? =
            if Self.makesStore(root) {
                readStore(root).map { .store($0) }
            } else if Self.isSwept(root) {
                readSweep(root).map { .sweep($0) }
            } else {
                readRecipe(root).map { .merge($0) }
            }
        return RecipeReading(
            recipe: problems.isEmpty ? recipe : nil, problems: problems, warnings: warnings, draft: draft,
            hasAllModels: hasAllModels, fineTunes: fineTunes, base: storeBase)
    }

    /// - Parameter advice: how to fix the problem.
    mutating func complain(_ problem: String, at line: Int, advice: String) {
        problems.append(TesseraError(.badData, problem, file: file, line: line, advice: advice))
    }

    var hasProblems: Bool { !problems.isEmpty }

    /// Reads one merge of a sweep, by a reader of its own that goes on from this one's warnings.
    ///
    /// - Parameter text: of the recipe with the values of this merge.
    mutating func readPoint(_ root: Node.Mapping, text: String) -> Recipe? {
        var reader = RecipeReader(text: text, file: file)
        reader.warnings = warnings
        let recipe = reader.readRecipe(root)
        problems += reader.problems
        hasAllModels = hasAllModels && reader.hasAllModels
        draft = draft ?? reader.draft
        // The first point has all unknown keys of the recipe; one that fails ends the reading.
        guard !reader.hasProblems else {
            warnings = reader.warnings
            return nil
        }
        return recipe
    }

    // MARK: YAML

    private mutating func compose() throws(Problems) -> Node.Mapping {
        let file = file
        func problem(_ text: String, line: Int?, advice: String) -> Problems {
            Problems([TesseraError(.badData, text, file: file, line: line, advice: advice)])
        }
        guard text.utf8.count <= Self.byteLimit else {
            throw problem(
                "has \(text.utf8.count) bytes; a recipe may have at most \(Self.byteLimit)", line: nil,
                advice: "check that this is a recipe")
        }
        var documents: [Node] = []
        do {
            if let wrong = try Aliases.problem(in: text, file: file) { throw Problems([wrong]) }
            documents = try RepeatedKeys.compose(text) { key, line in
                warnings.append(
                    TesseraError(
                        .badData, "the key '\(key)' occurs twice; the last one counts", file: file, line: line,
                        advice: "keep one of them"))
            }
        } catch let problems as Problems {
            throw problems
        } catch YamlError.scanner(_, let what, let mark, _), YamlError.parser(_, let what, let mark, _), YamlError.composer(
            _, let what, let mark, _)
        {
            let isTab = what.contains("cannot start any token") || what.contains("tab character")
            let advice =
                isTab
                ? "indent YAML with spaces, not tabs"
                : "look for an unclosed bracket or quote, or for inconsistent indentation, here or above"
            throw problem("is not valid YAML: \(what)", line: mark.line, advice: advice)
        } catch YamlError.duplicatedKeysInMapping(let keys, let context) {
            let names = keys.joined(separator: ", ")
            throw problem("the key '\(names)' occurs twice", line: context.mark.line, advice: "keep one of them")
        } catch {
            throw problem("is not valid YAML: \(error)", line: nil, advice: "write 'key: value' lines")
        }
        guard documents.count <= 1 else {
            throw problem(
                "contains \(documents.count) YAML documents, and recipes of several steps are not supported yet",
                line: documents[1].line,
                advice: "put each recipe in its own file, and run them in order: a later one names the output of an earlier one")
        }
        guard let node = documents.first, !node.isNull else {
            throw problem("is empty", line: nil, advice: "begin with a line such as 'merge_method: linear'")
        }
        var keys = MergeKeys()
        guard let node = keys.resolve(node) else {
            throw problem(
                "'<<' merges something that is not a map, or expands to too many nodes", line: node.line,
                advice: "write '<<: *NAME' for a map marked '&NAME', or write out the keys")
        }
        guard case .mapping(let mapping) = node else {
            throw problem(
                "is \(node.isScalar ? "plain text" : "a list"), not a recipe", line: node.line,
                advice: "write 'key: value' lines, such as 'merge_method: linear'")
        }
        for (key, what) in Self.otherTools {
            guard let value = mapping[key] else { continue }
            throw problem(
                "'\(key)' asks for \(what), which is not supported yet", line: value.line,
                advice: "use that tool, or merge models of the same architecture with 'merge_method'")
        }
        return mapping
    }

    /// Keys of mergekit's other recipes, which say what the whole file is.
    private static let otherTools = [
        ("experts", "a mixture of experts made of dense models (mergekit-moe)"),
        ("genome", "a search for a recipe (mergekit-evolve)"),
    ]

    // MARK: The recipe

    private mutating func readRecipe(_ root: Node.Mapping) -> Recipe? {
        checkKeys(of: root, known: Self.allKeys, place: "a recipe")
        var method: Located<String>?
        if let node = root["merge_method"] ?? misspelled("merge_method", in: root, known: Self.allKeys) {
            if let name = node.plainText {
                method = Located(name, line: node.line)
            } else {
                complain(
                    "'merge_method' must be the name of one method", at: node.line,
                    advice: "write a name, as in 'merge_method: linear'")
            }
        } else {
            complain("has no 'merge_method'", at: 1, advice: "add a line such as 'merge_method: linear'")
        }
        let base = readBase(root)
        baseModel = base?.value
        let modules = readModules(root)
        if modules.isEmpty { hasAllModels = false }
        let parameters = readParameters(root["parameters"])
        let dtype = readDtype(root, "dtype"), outDtype = readDtype(root, "out_dtype")
        let tokenizer = readTokenizer(root), chatTemplate = readChatTemplate(root), missing = readMissing(root)
        let output = readOutput(root)
        let recipe = Recipe(
            text: text, file: file, method: method ?? Located("", line: 1), modules: modules, baseModel: base,
            parameters: parameters, dtype: dtype, outDtype: outDtype, tokenizer: tokenizer, chatTemplate: chatTemplate,
            output: output, missing: missing, warnings: warnings)
        draft = recipe
        return method == nil ? nil : recipe
    }

    mutating func readBase(_ mapping: Node.Mapping) -> Located<ModelReference>? {
        guard let node = mapping["base_model"], !node.isNull else { return nil }
        let base = readReference(node)
        if base == nil { hasAllModels = false }
        return base
    }

    mutating func readReference(_ node: Node) -> Located<ModelReference>? {
        if let text = node.plainText {
            if let reference = ModelReference(parsing: text) { return Located(reference, line: node.line) }
            complain(
                "'\(text)' is not a model reference", at: node.line,
                advice: "write PATH, PATH@REVISION or PATH+ADAPTER, or a map with 'path'")
            return nil
        }
        // {model: {path, revision}, lora: {path, revision}}, for paths that contain '+' or '@'.
        guard case .mapping(let mapping) = node else {
            complain(
                "a model reference must be a path", at: node.line,
                advice: "write PATH, PATH@REVISION or PATH+ADAPTER, or a map with 'path'")
            return nil
        }
        let inner = mapping["model"].map { readPath($0) } ?? readPath(node)
        guard let model = inner else { return nil }
        return Located(ModelReference(model: model, adapter: mapping["lora"].flatMap { readPath($0) }), line: node.line)
    }

    mutating func readPath(_ node: Node) -> ModelReference.Source? {
        if let text = node.plainText { return ModelReference.Source(path: text) }
        guard case .mapping(let mapping) = node, let path = mapping["path"]?.plainText else {
            complain("the model reference has no 'path'", at: node.line, advice: "write {path: PATH, revision: REVISION}")
            return nil
        }
        return ModelReference.Source(path: path, revision: mapping["revision"]?.plainText)
    }

    private mutating func readDtype(_ root: Node.Mapping, _ key: String) -> DType? {
        guard let node = root[key], !node.isNull else { return nil }
        let text = node.plainText ?? ""
        let name = (text.hasPrefix("torch.") ? String(text.dropFirst("torch.".count)) : text).lowercased()
        if let dtype = Recipe.dtype(named: text) { return dtype }
        let names = Recipe.dtypes.keys.sorted()
        complain(
            "'\(key)' is \(node.shown); it must be a floating-point type", at: node.line,
            advice: Recipe.shortTypes[name].map { "did you mean '\($0)'?" }
                ?? Suggestion.advice(for: name, in: names, otherwise: "write one of"))
        return nil
    }

    // MARK: Parameters

    mutating func readParameters(_ node: Node?) -> ParameterScope {
        guard let node, !node.isNull else { return ParameterScope() }
        guard case .mapping(let mapping) = node else {
            complain(
                "'parameters' must be a map of names to values", at: node.line,
                advice: "write, for example, 'parameters: {weight: 0.5}'"
            )
            return ParameterScope(unread: Self.methodParameters)
        }
        var settings: [String: Located<ParameterSetting>] = [:], unread: Set<String> = []
        for (key, value) in mapping {
            if key.plainText == LayerScale.name {
                guard value.isMapping else {
                    complain(
                        "'lines' must have the keys 'alpha' and 'beta'", at: key.line,
                        advice: "write, for example, 'lines: {alpha: 0.125, beta: 0.5}'")
                    continue
                }
                settings.merge(readParameters(value).settings.map { ("\(LayerScale.name).\($0)", $1) }) { $1 }
                continue
            }
            guard let name = key.plainText else { continue }
            if let setting = readSetting(value, name: name) {
                settings[name] = Located(setting, line: key.line)
            } else {
                unread.insert(name)
            }
        }
        return ParameterScope(settings, unread: unread)
    }

    mutating func readSetting(_ node: Node, name: String) -> ParameterSetting? {
        switch node {
        case .sequence(let sequence) where sequence.contains { $0.isMapping }:
            if let plain = sequence.first(where: { !$0.isMapping }) {
                complain(
                    "the parameter '\(name)' mixes filters and plain values", at: plain.line,
                    advice: "write every entry as '- value: ...'")
                return nil
            }
            return .conditions(sequence.compactMap { readCondition($0, name: name) })
        case .mapping:
            return readCondition(node, name: name).map { .conditions([$0]) }
        default:
            return readValues(node, name: name).map { .values($0) }
        }
    }

    private mutating func readValues(_ node: Node, name: String) -> ParameterSetting.Values? {
        if case .sequence(let sequence) = node {
            if let inner = sequence.first(where: { !$0.isScalar }) {
                complain(
                    "the gradient of '\(name)' must be one list of numbers", at: inner.line,
                    advice: "write it without inner brackets, as in '\(name): [0, 0.5, 1]'")
                return nil
            }
            return .gradient(sequence.compactMap { readScalar($0, name: name) })
        }
        return readScalar(node, name: name).map { .scalar($0) }
    }

    private mutating func readScalar(_ node: Node, name: String) -> ScalarValue? {
        guard let value = node.scalarValue, value != .null else {
            complain(
                "the parameter '\(name)' has no value", at: node.line,
                advice: name.allSatisfy(\.isNumber)
                    ? "write decimals with a point, as in 0.5: in braces, a comma begins the next parameter"
                    : "write a number, a list of numbers, or filters")
            return nil
        }
        return value
    }

    private mutating func readCondition(_ node: Node, name: String) -> ParameterSetting.Condition? {
        guard case .mapping(let mapping) = node else { return nil }
        checkKeys(of: mapping, known: ["filter", "value"], place: "a filter")
        guard let valueNode = mapping["value"] else {
            complain(
                "the filter of '\(name)' has no 'value'", at: node.line,
                advice: "write {filter: PART_OF_TENSOR_NAME, value: NUMBER}")
            return nil
        }
        var filter: String?
        if let filterNode = mapping["filter"], !filterNode.isNull {
            guard case .string(let text)? = filterNode.scalarValue else {
                complain("a filter must be a part of a tensor's name", at: filterNode.line, advice: "put it in quotes")
                return nil
            }
            filter = text
        }
        let line = mapping["filter"]?.line ?? node.line
        return readValues(valueNode, name: name).map { ParameterSetting.Condition(filter: filter, values: $0, line: line) }
    }

    // MARK: Keys

    /// The value of a key that has to be there and is not, under a misspelled name: that is complained about.
    mutating func misspelled(_ key: String, in mapping: Node.Mapping, known: [String]) -> Node? {
        let found = mapping.first { other, _ in
            guard let name = other.plainText, !known.contains(name) else { return false }
            return Suggestion.closest(to: name, in: known) == key
        }
        guard let (other, value) = found, let name = other.plainText else { return nil }
        // This is more than a warning.
        let advice = "did you mean '\(key)'?"
        warnings.removeAll { $0.line == other.line && $0.advice == advice }
        complain("unknown key '\(name)'", at: other.line, advice: advice)
        return value
    }

    mutating func checkKeys(of mapping: Node.Mapping, known: [String], place: String) {
        for (key, _) in mapping {
            let name = key.plainText ?? "?"
            if !known.contains(name) {
                let advice =
                    known.contains("parameters") && Self.methodParameters.contains(name)
                    ? "move it under 'parameters:'"
                    : Suggestion.advice(for: name, in: known, otherwise: "remove it; the known keys are")
                warnings.append(
                    TesseraError(
                        .badData, "unknown or unused key '\(name)' in \(place)", file: file, line: key.line,
                        advice: advice))
            }
        }
    }
}

extension Node {
    /// The line of the node, from 1.
    var line: Int { mark?.line ?? 1 }

    var isMapping: Bool { if case .mapping = self { true } else { false } }

    var isScalar: Bool { if case .scalar = self { true } else { false } }

    var isNull: Bool { scalarValue == .null }

    /// The parsed scalar; `nil` for lists and maps.
    var scalarValue: ScalarValue? {
        guard case .scalar(let scalar) = self else { return nil }
        return scalar.style == .plain || scalar.style == .any ? ScalarValue(plain: scalar.string) : .string(scalar.string)
    }

    /// The node as shown in messages.
    var shown: String { scalarValue?.shown ?? (isMapping ? "a map" : "a list") }

    /// The scalar as written, for names and paths.
    var plainText: String? {
        guard case .scalar(let scalar) = self, !isNull else { return nil }
        return scalar.string
    }
}
