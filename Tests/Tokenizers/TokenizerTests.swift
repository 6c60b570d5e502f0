import Checkpoints
import Core
import Foundation
import Recipes
import TestSupport
import Testing
import Tokenizers

/// What tokenizer files are read as, and what is written in their place.
@Suite struct TokenizerTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func read(_ files: [String: String]) throws -> Tokenizer? {
        let place = try TemporaryDirectory()
        for (name, text) in files { try place.write(text, to: name) }
        return try Tokenizer.read(place.path, in: LocalFiles())
    }

    // MARK: Reading

    @Test func fastTokenizersOfAllKinds() throws {
        let bpe = try #require(try read(["tokenizer.json": SmallTokenizers.first]))
        #expect(bpe.form == .fast(model: "BPE"))
        #expect(bpe.id(of: "ab") == 3 && bpe.id(of: "<pad>") == 6 && bpe.id(of: "x") == nil)
        #expect(bpe.text(of: 4) == "Ġ" && bpe.text(of: 7) == nil && bpe.text(of: -1) == nil)
        #expect(bpe.tokenCount == 7 && bpe.idEnd == 7)
        #expect(bpe.isSpecial("<s>") && bpe.isAdded("<pad>") && !bpe.isAdded("a"))
        #expect(bpe.added["<pad>"]?.lstrip == true && bpe.added["<s>"]?.lstrip == false)

        let unigram = try #require(
            try read([
                "tokenizer.json":
                    #"{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.5e-3], ["b", -2]]}}"#
            ]))
        #expect(unigram.id(of: "▁a") == 1 && unigram.tokenCount == 3)
        let wordPiece = try #require(
            try read([
                "tokenizer.json": #"{"added_tokens": null, "model": {"vocab": {"[UNK]": 0, "_a": 1}, "type": "WordPiece"}}"#
            ]))
        #expect(wordPiece.form == .fast(model: "WordPiece") && wordPiece.id(of: "_a") == 1)
    }

    @Test func olderFiles() throws {
        let decoder =
            #"{"added_tokens_decoder": {"3": {"content": "<s>", "special": true}, "2": {"content": "<p>", "lstrip": true}}}"#
        let json = try #require(
            try read([
                "vocab.json": #"{"a": 0, "b": 1}"#, "added_tokens.json": #"{"<s>": 3, "<x>": 4}"#,
                "tokenizer_config.json": decoder,
            ]))
        #expect(json.addedOrder == ["<p>", "<s>", "<x>"])
        #expect(json.isSpecial("<s>") && json.added["<p>"]?.lstrip == true && json.id(of: "<x>") == 4)
        let lines = try #require(try read(["vocab.txt": "[PAD]\r\n[UNK]\na\n"]))
        #expect(lines.id(of: "[PAD]") == 0 && lines.id(of: "a") == 2 && lines.tokenCount == 3 && lines.form == .slow)
        #expect(try read([:]) == nil)
        #expect(try read(["tokenizer.model": "x"]) == nil)
    }

    @Test(arguments: [
        ("{}", "no 'model'"), (#"{"model": null}"#, "expected '{'"),
        (#"{"model": {"type": "BPE"}}"#, "no 'model' with a 'vocab'"),
        (#"{"model": {"vocab": {"a": 0, "b": 0}}}"#, "'a' and 'b' have the same id 0"),
        (#"{"model": {"vocab": {"a": 0, "a": 1}}}"#, "duplicate key 'a'"),
        (#"{"model": {"vocab": {"a": -1}}}"#, "non-negative integer"), (#"{"model": {"vocab": {"a": 1.5}}}"#, "integer"),
        (#"{"model": {"vocab": {"a": 4194304}}}"#, "ids must be from"),
        (#"{"model": {"vocab": {"a": 99999999999999999999}}}"#, "too large"),
        (#"{"model": {"vocab": [["a", 0], ["a", 0]]}}"#, "two ids, 0 and 1"), (#"{"model": {"vocab": [[]]}}"#, "without text"),
        (#"{"model": {"vocab": [[7, 0]]}}"#, "expected '\"'"), (#"{"model": {"vocab": 7}}"#, "expected '{'"),
        (#"{"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "x"}]}"#, "without 'id' or 'content'"),
        (#"{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 0, "content": "x"}]}"#, "the same id 0"),
        (#"{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": 3}]}"#, "expected '\"'"),
        (#"{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "x", "special": 1}]}"#, "true or false"),
        (#"{"model": {"vocab": {"a": 0}}}x"#, "unexpected data after"), (#"{"model": {"vocab": {"\ud800": 0}}}"#, "surrogate"),
    ])
    func whatIsWrongIsSaid(text: String, words: String) throws {
        let error = #expect(throws: TesseraError.self) { try read(["tokenizer.json": text]) }
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "nothing")")
        #expect(error?.file?.hasSuffix("/tokenizer.json") == true)
    }

    /// Whatever is done to the file, it is read or refused.
    @Test func mutationsDoNotCrash() throws {
        let path = try SmallTokenizers.write(SmallTokenizers.second, to: "m", in: directory)
        let bytes = Array(SmallTokenizers.second.utf8)
        var random = SplitMix(seed: 5)
        var refused = 0
        for round in 0..<600 {
            var mutated = bytes
            for _ in 0...round % 3 {
                let place = Int.random(in: mutated.indices, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: mutated[place] = UInt8.random(in: 0...255, using: &random)
                case 1: mutated.remove(at: place)
                case 2: mutated.insert(Array("\"{}[],:0-9e\\".utf8).randomElement(using: &random) ?? 0, at: place)
                default: mutated.removeSubrange(place...)
                }
                if mutated.isEmpty { mutated = bytes }
            }
            try Data(mutated).write(to: URL(fileURLWithPath: "\(path)/tokenizer.json"))
            do { _ = try Tokenizer.read(path, in: LocalFiles()) } catch { refused += 1 }
        }
        #expect(refused > 300)
    }

    // MARK: Writing

    private static let changes: TokenizerChanges = {
        let word = AddedToken(id: 7, text: "d\"\n")
        var tool = AddedToken(id: 8, text: "<tool>")
        tool.singleWord = true
        return TokenizerChanges(appended: [word, tool], isUnion: true)
    }()

    private func write(_ files: [String: String]) throws -> String {
        for (name, text) in files { try directory.write(text, to: name) }
        return directory.path
    }

    private func made(_ files: TokenizerFiles) throws -> (texts: [String: String], remarks: [String]) {
        let made = try files.make()
        let texts = try made.files.map { ($0.name, String(decoding: try $0.contents(from: LocalFiles()), as: UTF8.self)) }
        return (Dictionary(uniqueKeysWithValues: texts), made.remarks)
    }

    @Test func appendedTokensAreAllThatChanges() throws {
        let config =
            "{\n  \"added_tokens_decoder\": {\n    \"5\": {\n      \"content\": \"<s>\"\n    }\n  },\n  \"x\": 1e-05\n}\n"
        let path = try write([
            "tokenizer.json": SmallTokenizers.first, "tokenizer_config.json": config, "merges.txt": "a b\n",
            "tokenizer.model": "x",
            "special_tokens_map.json": "{}", "added_tokens.json": #"{"<s>": 5}"#, "chat_template.jinja": "{{ messages }}",
        ])
        let (files, remarks) = try made(TokenizerFiles(directory: path, changes: Self.changes, in: LocalFiles()))
        let tokens = Self.changes.appended.map { token in
            #"{"id": \#(token.id), "content": \#(JSONText.quoted(token.text.string)), "single_word": \#(token.singleWord), "#
                + #""lstrip": false, "rstrip": false, "normalized": false, "special": false}"#
        }
        #expect(
            files["tokenizer.json"]
                == SmallTokenizers.first.replacingOccurrences(
                    of: "\n  ],\n  \"norm", with: ",\n    \(tokens.joined(separator: ",\n    "))\n  ],\n  \"norm"))
        let result = try #require(files["tokenizer_config.json"])
        #expect(result.hasPrefix(config.prefix(60)) && result.hasSuffix("\n  },\n  \"x\": 1e-05\n}\n"))
        let decoder = try JSONText(Array(result.utf8))
        #expect(decoder.string(["added_tokens_decoder", "7", "content"]) == "d\"\n")
        #expect(decoder.flag(["added_tokens_decoder", "8", "single_word"]) == true)
        #expect(try JSONText(Array(#require(files["added_tokens.json"]).utf8)).integer(["<tool>"]) == 8)
        #expect(files["merges.txt"] == "a b\n" && files["chat_template.jinja"] == "{{ messages }}")
        #expect(files["tokenizer.model"] == nil && remarks.count == 1)
        // What was written is read back with the same ids.
        let read = try #require(try read(["tokenizer.json": files["tokenizer.json"] ?? ""]))
        #expect(read.id(of: "<tool>") == 8 && read.id(of: "d\"\n") == 7 && read.added["<tool>"]?.singleWord == true)
        #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data((files["tokenizer.json"] ?? "").utf8)) }
    }

    @Test func withoutChangesFilesAreCopied() throws {
        let path = try write([
            "tokenizer.json": "anything", "tokenizer_config.json": "{ }", "tokenizer.model": "x", "vocab.txt": "y",
        ])
        let (files, remarks) = try made(TokenizerFiles(directory: path, in: LocalFiles()))
        #expect(
            files == ["tokenizer.json": "anything", "tokenizer_config.json": "{ }", "tokenizer.model": "x", "vocab.txt": "y"])
        #expect(remarks == [])
    }

    @Test(arguments: [
        ("{\"model\": {}}", true), ("{\"model\": {}, \"added_tokens\": null}", true), ("{\"added_tokens\": []}", true),
    ])
    func addedTokensAreMadeWhereThereAreNone(text: String, isRight: Bool) throws {
        let path = try write(["tokenizer.json": text])
        let (files, _) = try made(TokenizerFiles(directory: path, changes: Self.changes, in: LocalFiles()))
        let json = try JSONSerialization.jsonObject(with: Data((files["tokenizer.json"] ?? "").utf8)) as? [String: Any]
        #expect((json?["added_tokens"] as? [[String: Any]])?.map { $0["id"] as? Int } == [7, 8])
    }

    @Test func removedTokensTakeTheirMergesAlong() throws {
        let path = try write([
            "tokenizer.json": SmallTokenizers.first,
            "tokenizer_config.json": #"{"added_tokens_decoder": {"5": {"content": "<s>"}, "6": {"content": "<pad>"}}}"#,
        ])
        let (files, _) = try made(
            TokenizerFiles(directory: path, changes: TokenizerChanges(removed: [3, 4, 5, 6]), in: LocalFiles()))
        let read = try #require(try read(["tokenizer.json": files["tokenizer.json"] ?? ""]))
        #expect(read.tokenCount == 3 && read.addedOrder == [])
        #expect(files["tokenizer.json"]?.contains(#""vocab": {"a": 0,"b": 1,"c": 2}, "merges": []"#) == true)
        #expect(files["tokenizer_config.json"] == #"{"added_tokens_decoder": {}}"#)
        let some = try made(TokenizerFiles(directory: path, changes: TokenizerChanges(removed: [5]), in: LocalFiles())).texts
        #expect(some["tokenizer.json"]?.contains("[\n\(SmallTokenizers.added(6, "<pad>", "special lstrip"))\n  ]") == true)
        #expect(some["tokenizer_config.json"] == #"{"added_tokens_decoder": {"6": {"content": "<pad>"}}}"#)
    }

    @Test func tokensNeedAFastTokenizer() throws {
        let path = try write(["vocab.txt": "a\n"])
        let error = #expect(throws: TesseraError.self) {
            try TokenizerFiles(directory: path, changes: Self.changes, in: LocalFiles()).make()
        }
        #expect(error?.problem.contains("no tokenizer.json") == true)
    }

    // MARK: Chat templates

    @Test func aTemplateStandsInBothPlaces() throws {
        let path = try write(["tokenizer_config.json": #"{"a": 1, "chat_template": "old"}"#, "chat_template.json": "{}"])
        let (files, _) = try made(TokenizerFiles(directory: path, template: "{{ new }}", in: LocalFiles()))
        #expect(
            files == ["tokenizer_config.json": #"{"a": 1, "chat_template": "{{ new }}"}"#, "chat_template.jinja": "{{ new }}"])
    }

    @Test func autoIsTheMostFrequentOne() throws {
        var paths: [String] = []
        for (index, files) in [
            ["chat_template.jinja": "one\n", "tokenizer_config.json": #"{"chat_template": "two"}"#],
            ["tokenizer_config.json": #"{"chat_template": " two "}"#],
            [
                "tokenizer_config.json":
                    #"{"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "two"}]}"#
            ],
            ["tokenizer_config.json": "{}"], [:],
        ].enumerated() {
            paths.append("\(directory.path)/\(index)")
            try FileManager.default.createDirectory(atPath: paths[index], withIntermediateDirectories: true)
            for (name, text) in files { try directory.write(text, to: "\(index)/\(name)") }
        }
        #expect(try ChatTemplates.template(.auto, directories: paths, in: LocalFiles()) == "two")
        #expect(try ChatTemplates.template(.auto, directories: Array(paths[..<2]), in: LocalFiles()) == "one")
        #expect(try ChatTemplates.template(.auto, directories: Array(paths[3...]), in: LocalFiles()) == nil)
        #expect(
            try ChatTemplates.template(.literal("{{ literal text here }}"), directories: [], in: LocalFiles())
                == "{{ literal text here }}")
        #expect(try ChatTemplates.template(.named(.chatml), directories: [], in: LocalFiles())?.contains("<|im_start|>") == true)
    }
}

extension Tokenizer {
    fileprivate var tokenCount: Int { (0..<idEnd).count { text(of: $0) != nil } }

    fileprivate func isSpecial(_ text: ExactText) -> Bool { added[text]?.special == true }
}
