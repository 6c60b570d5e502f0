import Foundation
import Operators
package import Recipes

/// Two small byte-level BPE tokenizers with overlapping vocabularies, and what tests say about them.
package enum SmallTokenizers {
    package static func added(_ id: Int, _ text: String, _ flags: String = "") -> String {
        let on = Set(flags.split(separator: " ").map(String.init))
        let names = ["single_word", "lstrip", "rstrip", "normalized", "special"]
        let members = names.map { "\"\($0)\": \(on.contains($0))" }.joined(separator: ", ")
        return "    {\"id\": \(id), \"content\": \"\(text)\", \(members)}"
    }

    package static func bpe(_ tokens: [String], merges: [String], added: [String]) -> String {
        let vocabulary = tokens.enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ",")
        let list = merges.map { "\"\($0)\"" }.joined(separator: ", ")
        return """
            {
              "version": "1.0",
              "truncation": null,
              "padding": null,
              "added_tokens": [
            \(added.joined(separator: ",\n"))
              ],
              "normalizer": null,
              "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
              "post_processor": null,
              "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
              "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
                "vocab": {\(vocabulary)}, "merges": [\(list)]}
            }

            """
    }

    /// Ids 0–6.
    package static let first = bpe(
        ["a", "b", "c", "ab", "Ġ"], merges: ["a b"], added: [added(5, "<s>", "special"), added(6, "<pad>", "special lstrip")])

    /// Ids 0–8. `c` is an added token here and an ordinary one there; `<s>` has other flags.
    package static let second = bpe(
        ["b", "a", "d", "bd", "Ġ"], merges: ["b d"],
        added: [
            added(5, "<s>", "special rstrip"), added(6, "<tool>", "single_word"), added(7, "c", "normalized"), added(8, "<far>"),
        ])

    package static func write(_ text: String, to name: String, in directory: TemporaryDirectory) throws -> String {
        let path = "\(directory.path)/\(name)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try directory.write(text, to: "\(name)/tokenizer.json")
        return path
    }

    package static func reference(_ name: String) -> ModelReference { ModelReference(model: .init(path: name)) }

    package static func recipe(
        _ source: TokenizerRecipe.Source, _ tokens: [TokenizerRecipe.Token] = [], padTo: Int? = nil
    ) -> TokenizerRecipe {
        TokenizerRecipe(source: Located(source, line: 7), tokens: tokens, padToMultipleOf: padTo)
    }
}

extension RowMap {
    /// `m2` is row 2 of matrix m; `m2+n3` the mean of two rows; `0` zero; `~` padding.
    package func described(_ names: [String]) -> [String] {
        (0..<rowCount).map { row in
            switch origin(ofRow: row) {
            case .stored(let row): "\(names[row.source])\(row.row)"
            case .mean(let rows): rows.map { "\(names[$0.source])\($0.row)" }.joined(separator: "+")
            case .zero: "0"
            case .padding: "~"
            }
        }
    }
}
