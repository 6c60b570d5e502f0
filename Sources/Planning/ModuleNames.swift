import Recipes

/// To which part of a model of several parts a tensor belongs, by its name.
///
/// The names of the parts are mergekit's. What tells them apart is how published checkpoints of such families name their tensors:
/// the vision side and the projector carry their role in the name, and encoder-decoder models begin with it. A model with none of
/// these has one module, `default`.
enum ModuleNames {
    static let single = "default"

    private static let projector = ["multi_modal_projector.", "mm_projector.", "visual.merger.", "visual.deepstack_merger_list."]
    private static let vision = ["vision_tower.", "vision_model.", "visual.", "vision_encoder."]
    private static let audio = ["audio_tower.", "audio_model.", "audio_encoder."]
    private static let encoderDecoder = ["encoder", "decoder", "shared"]

    /// The module of every tensor, in the order of the names.
    static func modules(of names: [String]) -> [String] {
        let hasTower = names.contains { name in (vision + audio).contains { hasRole(name, $0) } }
        // An encoder and a decoder have layers: RoBERTa's lm_head.decoder is none.
        let roots = Set(names.lazy.filter { TensorName($0).layer != nil }.compactMap { encoderDecoderRole(of: $0) })
        let isEncoderDecoder = roots.contains("encoder") && roots.contains("decoder")
        return names.map { name in
            if hasTower {
                if projector.contains(where: { hasRole(name, $0) }) { return "multi_modal_projector" }
                if audio.contains(where: { hasRole(name, $0) }) { return "audio_tower" }
                return vision.contains { hasRole(name, $0) } ? visionName(of: name) : "text_decoder"
            }
            // Heads and other loose tensors of encoder-decoder models belong to the decoder.
            return isEncoderDecoder ? encoderDecoderRole(of: name) ?? "decoder" : single
        }
    }

    /// The role stands at the beginning of the name, or after a wrapper's.
    private static func hasRole(_ name: String, _ role: String) -> Bool {
        if name.hasPrefix(role) { return true }
        guard let dot = name.utf8.firstIndex(of: UInt8(ascii: ".")) else { return false }
        return name[name.utf8.index(after: dot)...].hasPrefix(role)
    }

    private static func visionName(of name: String) -> String {
        hasRole(name, "vision_model.") && !hasRole(name, "vision_tower.") ? "vision_model" : "vision_tower"
    }

    private static func encoderDecoderRole(of name: String) -> String? {
        encoderDecoder.first { hasRole(name, "\($0).") }
    }
}
