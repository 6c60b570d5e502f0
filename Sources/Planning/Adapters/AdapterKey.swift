/// What the name of an adapter's tensor says, such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
struct AdapterKey {
    enum Role: Hashable {
        case a, b, embeddingA, embeddingB, magnitudes
        /// The bias of factor B.
        case bias
        /// Rows of trained tokens.
        case rows
        /// A tensor of the module itself, by its name in the module.
        case whole(String)
    }

    /// Where a factor belongs.
    struct Place: Hashable {
        /// The path in the model, without the wrappers that PEFT puts around modules.
        let module: String
        /// The number of wrappers inside the one that the factor belongs to: parameters of one module are wrapped one around
        /// the other.
        let depth: Int
    }

    let place: Place
    let role: Role

    /// Of the names that PEFT gives to an adapter's tensors.
    static let prefix = "base_model.model."
    private static let roles: [Substring: Role] = [
        "lora_A": .a, "lora_B": .b, "lora_embedding_A": .embeddingA, "lora_embedding_B": .embeddingB,
        "lora_magnitude_vector": .magnitudes, "trainable_tokens_delta": .rows,
    ]
    /// What wrappers of whole modules and of embeddings with trained tokens insert into the path.
    private static let wrappers: Set<Substring> = ["modules_to_save", "token_adapter"]
    /// Copies of the model's own tensors, which a wrapper keeps.
    private static let copies: Set<Substring> = ["original_module", "trainable_tokens_original"]
    private static let wrapped: Substring = "base_layer"

    /// - Returns: `nil` for a name that no known adapter has.
    init?(_ name: String) {
        let path = name.hasPrefix(Self.prefix) ? name.dropFirst(Self.prefix.count) : Substring(name)
        var steps = path.split(separator: ".", omittingEmptySubsequences: false)
        if let index = steps.firstIndex(where: { Self.roles[$0] != nil }), let role = Self.roles[steps[index]] {
            var rest = steps[(index + 1)...].filter { $0 != "default" }
            var module = steps[..<index].filter { !Self.wrappers.contains($0) }
            var depth = 0
            while module.last == Self.wrapped {
                module.removeLast()
                depth += 1
            }
            if rest.last == "weight" { rest.removeLast() }
            let isBias = rest == ["bias"] && role == .b
            guard rest.isEmpty || isBias, !module.isEmpty else { return nil }
            module.removeAll { $0 == Self.wrapped }
            place = Place(module: module.joined(separator: "."), depth: depth)
            self.role = isBias ? .bias : role
            return
        }
        guard !steps.contains(where: { $0.hasPrefix("lora_") || $0.hasPrefix("trainable_tokens") }) else { return nil }
        steps.removeAll { Self.wrappers.contains($0) || $0 == Self.wrapped }
        // The name of the adapter stands behind the wrapper of a module.
        if path.contains(".modules_to_save.default.") { steps.removeAll { $0 == "default" } }
        guard steps.count > 1, let leaf = steps.popLast() else { return nil }
        place = Place(module: steps.joined(separator: "."), depth: 0)
        role = .whole(String(leaf))
    }

    /// Whether the tensor is a copy of the model's own, which says nothing.
    static func isCopy(_ name: String) -> Bool { name.split(separator: ".").contains { copies.contains($0) } }
}
