import Checkpoints
package import Core

/// What an adapter says of itself, for those who look at it without its model.
package struct AdapterSummary: Sendable, Encodable {
    package struct Tensor: Sendable, Encodable {
        package let name: String
        package let dtype: DType
        package let shape: [Int]
        package let bytes: Int
    }

    /// `peft_type`, such as `LORA`.
    package let kind: String
    /// What the adapter was trained on, as its config has it.
    package let baseModel: String?
    /// `r` of the config; the ranks of single modules may be others.
    package let rank: Int?
    /// The ranks of the factors, in order.
    package let ranks: [Int]
    package let alpha: Double?
    package let usesRankStabilisation: Bool
    package let usesDoRA: Bool
    /// `target_modules`: names, or one regular expression.
    package let targets: [String]
    /// Modules that were trained whole.
    package let savedModules: [String]
    package let file: String
    package let bytes: Int
    package let tensors: [Tensor]

    package static func isAdapter(_ directory: String, in files: any InputFiles) throws(TesseraError) -> Bool {
        guard try files.exists("\(directory)/\(AdapterConfig.fileName)") else { return false }
        return try files.exists("\(directory)/\(Adapter.weightsName)")
    }

    /// - Throws: what reading the config and the header of the weights throws.
    package init(_ directory: String, in files: any InputFiles) throws(TesseraError) {
        let path = "\(directory)/\(AdapterConfig.fileName)"
        let json = try JSONText(try files.read(path, maxBytes: 16 << 20), file: path)
        let header = try SafetensorsHeader.read(path: "\(directory)/\(Adapter.weightsName)", in: files)
        kind = json.string(["peft_type"]) ?? "unknown"
        baseModel = json.string(["base_model_name_or_path"]).flatMap { $0.isEmpty ? nil : $0 }
        rank = json.integer(["r"])
        alpha = json.json(["lora_alpha"]).flatMap { Double($0) }
        usesRankStabilisation = json.flag(["use_rslora"]) == true
        usesDoRA = json.flag(["use_dora"]) == true
        targets = json.string(["target_modules"]).map { [$0] } ?? json.strings(["target_modules"])
        savedModules = json.strings(["modules_to_save"])
        file = Adapter.weightsName
        bytes = header.fileSize
        ranks = Set(
            header.tensors.compactMap { entry in
                switch AdapterKey(entry.name)?.role {
                case .a, .embeddingA: entry.shape.first
                default: nil
                }
            }
        ).sorted()
        tensors = header.tensors.map { Tensor(name: $0.name, dtype: $0.dtype, shape: $0.shape, bytes: $0.byteCount) }
    }
}
