import Checkpoints
import Core

extension InputSet.Input {
    /// What checkpoints call the scales of `m.weight`: `m.weight_scale_inv` and `m.weight_scale` (Transformers, vLLM),
    /// `m.scale_weight` (ComfyUI), `m.scale` (DeepSeek's own format).
    private static func scaleNames(of name: String) -> [String] {
        let dot = name.lastIndex(of: ".").map { name.index(after: $0) } ?? name.startIndex
        let module = name[..<dot], leaf = name[dot...]
        return ["\(name)_scale_inv", "\(name)_scale", "\(module)scale_\(leaf)", "\(module)scale"]
    }

    /// A complaint about a float8 tensor whose elements are values only together with scales, on which nothing can be computed as
    /// they are; `nil` for any other.
    func scaledCodes(_ name: String) -> (problem: String, advice: String)? {
        let name = names.own(name)
        guard holdsFloat8, let dtype = checkpoint.tensor(named: name)?.entry.dtype, dtype.isArithmetic, dtype.bitWidth == 8 else {
            return nil
        }
        let key = "quantization_config"
        let scale =
            Self.scaleNames(of: name).first { checkpoint.tensor(named: $0) != nil }.map { "'\($0)'" }
            ?? (checkpoint.config?.json([key])?.first == "{" ? "'\(key)' in its \(Checkpoint.configName)" : nil)
        guard let scale else { return nil }
        return (
            "has scaled float8 values in \(reference), which need \(scale)",
            "apply the scales first, for example by converting to bfloat16, or use passthrough without 'dtype' and 'scale'"
        )
    }
}
