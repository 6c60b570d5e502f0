import Foundation
import TestSupport
import Testing

/// Models of different vocabularies: every row of the merged embedding is where it belongs.
@Suite(.serialized) struct VocabularyMergeTests {
    private let directory: TemporaryDirectory

    /// Every row of a model is its own id, plus 100 for the second model; the second dimension repeats it.
    init() throws {
        directory = try TemporaryDirectory()
        try write("a", tokens: ["<s>", "x", "y", "z"], rows: 6, start: 0)
        try write("b", tokens: ["<s>", "z", "w", "x"], rows: 4, start: 100)
    }

    private func write(_ name: String, tokens: [String], rows: Int, start: Float) throws {
        let matrix = TestTensor((0..<2 * rows).map { start + Float($0 / 2) }, shape: [rows, 2])
        try TestTensor.writeCheckpoint(
            "\(directory.path)/\(name)",
            [("model.embed_tokens.weight", matrix), ("lm_head.weight", matrix), ("model.norm.weight", TestTensor([1, 1]))])
        try directory.write(#"{"vocab_size": \#(rows), "torch_dtype": "float32"}"#, to: "\(name)/config.json")
        let vocabulary = tokens.enumerated().dropFirst().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
        let added =
            #"{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "#
            + #""normalized": false, "special": true}"#
        try directory.write(
            #"{"version": "1.0", "added_tokens": [\#(added)], "#
                + #""model": {"type": "BPE", "vocab": {"<s>": 0, \#(vocabulary)}, "merges": []}}"#,
            to: "\(name)/tokenizer.json")
        try directory.write("{}", to: "\(name)/tokenizer_config.json")
    }

    private func merge(_ lines: String, weights: (Float, Float) = (0.5, 0.5)) async throws -> [Float] {
        let recipe = """
            merge_method: linear
            models:
            - {model: a, parameters: {weight: \(weights.0)}}
            - {model: b, parameters: {weight: \(weights.1)}}
            \(lines)
            """
        try directory.write(recipe, to: "r.yml")
        let outcome = try await Tessera.run(["run", "r.yml", "out", "--overwrite"], in: directory.path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try await Tessera.run(["verify", "out"], in: directory.path).exitCode == 0)
        let tensors = try TestTensor.read("\(directory.path)/out")
        #expect(tensors["lm_head.weight"] == tensors["model.embed_tokens.weight"])
        let values = try #require(tensors["model.embed_tokens.weight"]?.values)
        return stride(from: 0, to: values.count, by: 2).map { Float(values[$0]) }
    }

    private func config(_ key: String) throws -> Int? {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/out/config.json"))
        return (try JSONSerialization.jsonObject(with: data) as? [String: Any])?[key] as? Int
    }

    @Test func aUnionKeepsAllTokens() async throws {
        // <s> x y z w: y is only a's, w only b's.
        #expect(try await merge("tokenizer_source: union", weights: (1, 0)) == [0, 1, 2, 3, 102])
        #expect(try await merge("tokenizer_source: union", weights: (0, 1)) == [100, 103, 2, 101, 102])
        #expect(try config("vocab_size") == 5)
        let text = try String(contentsOfFile: "\(directory.path)/out/tokenizer.json", encoding: .utf8)
        let tokenizer = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let added = (tokenizer?["added_tokens"] as? [[String: Any]])?.map { ($0["id"] as? Int, $0["content"] as? String) }
        #expect(added?.map(\.0) == [0, 4] && added?.map(\.1) == ["<s>", "w"])
    }

    @Test func theBasesVocabularyAndPadding() async throws {
        #expect(try await merge("tokenizer_source: a", weights: (0, 1)) == [100, 103, 2, 101])
        #expect(
            try await merge("tokenizer: {source: a, pad_to_multiple_of: 8}", weights: (1, 0)) == [0, 1, 2, 3, 1.5, 1.5, 1.5, 1.5])
        #expect(try config("vocab_size") == 8)
    }

    @Test func tokensWithSourcesOfTheirOwn() async throws {
        let tokens = """
            tokenizer:
              source: union
              tokens:
                x: {source: a, force: true}
                y: {source: {kind: model_token, model: b, token: w}}
                new: {source: {kind: zero}}
            """
        // b's x is a's by force, b's y is b's w, and nobody has 'new'.
        #expect(try await merge(tokens, weights: (0, 1)) == [100, 1, 102, 101, 102, 0])
    }

    @Test func theSameBytesThroughWorkers() async throws {
        _ = try await merge("tokenizer_source: union", weights: (0.3, 0.7))
        let alone = try outputFiles("\(directory.path)/out")
        let cluster = try await Cluster(workers: 2)
        let outcome = try await Tessera.run(
            ["submit", "r.yml", "together", "--wait", "--coordinator", cluster.jobs, "--shard-size", "1kB"], in: directory.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles("\(directory.path)/together") == alone)
    }

    @Test func vocabulariesThatDifferAreRefused() async throws {
        try directory.write("merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1}\n", to: "r.yml")
        let outcome = try await Tessera.run(["run", "r.yml", "out"], in: directory.path)
        #expect(outcome.exitCode == 65)
        #expect(
            outcome.errors.contains("'b' has 4 rows instead of the 6 of 'a'")
                && outcome.errors.contains("1 is \"z\" here and \"x\" there"))
        #expect(outcome.errors.contains("add 'tokenizer_source: union'"))
    }
}
