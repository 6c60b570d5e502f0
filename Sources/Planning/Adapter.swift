import Checkpoints
import Core
import FoundationEssentials

/// A LoRA adapter as PEFT saves it: `adapter_config.json` beside `adapter_model.safetensors`.
///
/// `W += s·B·A` with `s = alpha / r`, or `alpha / √r` for rank-stabilised LoRA (arXiv 2312.03732); `r` is what the factors'
/// shapes say, `alpha` the module's own where `alpha_pattern` names it. Modules that were trained whole (`modules_to_save`)
/// replace the model's.
struct Adapter {
    enum Change {
        /// The factors, the scale, and whether the product is transposed.
        case lowRank(a: TensorEntry, b: TensorEntry, scale: Double, isTransposed: Bool)
        case replacement(TensorEntry)
    }

    static let weightsName = "adapter_model.safetensors"
    private static let configName = "adapter_config.json"
    private static let prefix = "base_model.model."

    let directory: String
    let header: SafetensorsHeader
    /// By the name of the model's tensor.
    private(set) var changes: [ExactText: Change] = [:]

    private struct Config: Decodable {
        var peft_type: String?
        var lora_alpha: Double?
        var use_rslora: Bool?
        var use_dora: Bool?
        var fan_in_fan_out: Bool?
        var alpha_pattern: [String: Double]?
    }

    /// - Parameter model: what it changes.
    /// - Throws: `badData` for an adapter of another kind, or one that does not belong to such a model; `inputMissing` when a
    ///   file is not there.
    init(directory: String, of model: Checkpoint, in files: any InputFiles) throws(TesseraError) {
        self.directory = directory
        let configPath = "\(directory)/\(Self.configName)"
        let config: Config
        do {
            config = try JSONDecoder().decode(Config.self, from: Data(try files.read(configPath, maxBytes: 16 << 20)))
        } catch let error as TesseraError {
            throw error
        } catch {
            throw TesseraError(.badData, "is not a valid adapter config: \(error)", file: configPath)
        }
        guard (config.peft_type ?? "LORA") == "LORA", config.use_dora != true else {
            throw TesseraError(
                .badData,
                "is a \(config.use_dora == true ? "DoRA" : config.peft_type ?? "?") adapter; only plain LoRA can be merged",
                file: configPath, advice: "merge it into its model with PEFT first")
        }
        header = try SafetensorsHeader.read(path: "\(directory)/\(Self.weightsName)", in: files)
        let entries = Dictionary(header.tensors.map { (ExactText($0.name), $0) }, uniquingKeysWith: { first, _ in first })
        for entry in header.tensors {
            guard let key = Key(entry.name, prefix: Self.prefix) else {
                throw TesseraError(
                    .badData, "is not part of a LoRA adapter that can be merged", file: "\(directory)/\(Self.weightsName)",
                    tensor: entry.name)
            }
            guard key.factor != .b else { continue }
            guard let target = key.target(in: model) else {
                throw TesseraError(
                    .badData, "the model has no tensor '\(key.module).weight' for it",
                    file: "\(directory)/\(Self.weightsName)",
                    tensor: entry.name, advice: "check that the adapter belongs to this model")
            }
            guard key.factor == .a else {
                changes[ExactText(target)] = .replacement(entry)
                continue
            }
            guard let b = entries[ExactText(key.other)], entry.shape.count == 2, b.shape.count == 2, entry.shape[0] == b.shape[1],
                entry.shape[0] > 0
            else {
                throw TesseraError(
                    .badData, "has no second factor with the same rank", file: "\(directory)/\(Self.weightsName)",
                    tensor: entry.name)
            }
            let rank = Double(entry.shape[0]), alpha = try Self.alpha(of: key.module, config, file: configPath)
            changes[ExactText(target)] = .lowRank(
                a: entry, b: b, scale: config.use_rslora == true ? alpha / rank.squareRoot() : alpha / rank,
                isTransposed: key.isEmbedding || config.fan_in_fan_out == true)
        }
    }

    /// The module's own `alpha` where a pattern fits the end of its path, else the adapter's.
    private static func alpha(of module: String, _ config: Config, file: String) throws(TesseraError) -> Double {
        for (pattern, alpha) in (config.alpha_pattern ?? [:]).sorted(by: { $0.key < $1.key }) {
            do {
                let anchored = pattern.hasPrefix("^") ? String(pattern.dropFirst()) : "(?:.*\\.)?(?:\(pattern))"
                if try Regex(anchored).wholeMatch(in: module) != nil { return alpha }
            } catch {
                throw TesseraError(
                    .badData, "'\(pattern)' in 'alpha_pattern' is not a valid regular expression: \(error)", file: file)
            }
        }
        guard let alpha = config.lora_alpha else { throw TesseraError(.badData, "has no 'lora_alpha'", file: file) }
        return alpha
    }

    /// What the name of an adapter's tensor says.
    private struct Key {
        enum Factor { case a, b, whole }

        let module: String
        let factor: Factor
        let isEmbedding: Bool
        /// The name of factor B, where this is A.
        let other: String
        /// What a whole tensor is called in its module.
        private let leaf: String

        init?(_ name: String, prefix: String) {
            guard name.hasPrefix(prefix) else { return nil }
            let path = String(name.dropFirst(prefix.count)).replacing(".modules_to_save.default", with: "").replacing(
                ".modules_to_save", with: ""
            )
            .replacing(".base_layer.", with: ".")
            for (mark, factor, isEmbedding) in [
                (".lora_A", Factor.a, false), (".lora_B", .b, false), (".lora_embedding_A", .a, true),
                (".lora_embedding_B", .b, true),
            ] {
                guard let range = path.firstRange(of: mark),
                    ["", ".weight", ".default", ".default.weight"].contains(String(path[range.upperBound...]))
                else { continue }
                module = String(path[..<range.lowerBound])
                self.factor = factor
                self.isEmbedding = isEmbedding
                other = name.replacing(mark, with: isEmbedding ? ".lora_embedding_B" : ".lora_B")
                leaf = "weight"
                return
            }
            guard !path.contains("lora_"), let dot = path.lastIndex(of: ".") else { return nil }
            module = String(path[..<dot])
            leaf = String(path[path.index(after: dot)...])
            factor = .whole
            isEmbedding = false
            other = ""
        }

        /// The model's tensor: by its full path, or without a wrapper's first step.
        func target(in checkpoint: Checkpoint) -> String? {
            let full = "\(module).\(leaf)"
            let short = full.hasPrefix("model.") ? String(full.dropFirst("model.".count)) : "model.\(full)"
            return [full, short].first { checkpoint.tensor(named: $0) != nil }
        }
    }
}
