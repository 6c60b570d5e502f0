import Core
import Foundation
import Operators
import Recipes
import TestSupport
import Testing
import Tokenizers

/// Every row of every aligned matrix against what the recipe's reference prescribes, worked out by hand.
@Suite struct VocabularyTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func model(_ name: String, _ text: String?, rows: Int?, isInput: Bool = true) throws -> VocabularyModel {
        let path = try text.map { try SmallTokenizers.write($0, to: name, in: directory) }
        return VocabularyModel(
            reference: SmallTokenizers.reference(name), tokenizer: try path.flatMap { try Tokenizer.read($0, in: LocalFiles()) },
            vocabularySize: rows,
            isInput: isInput)
    }

    /// `a` and `b`, of 8 rows each: b's `<far>` with id 8 has no row.
    private func pair() throws -> [VocabularyModel] {
        [try model("a", SmallTokenizers.first, rows: 8), try model("b", SmallTokenizers.second, rows: 8)]
    }

    private func plan(_ models: [VocabularyModel], _ recipe: TokenizerRecipe, base: Int? = 0) throws -> VocabularyPlan {
        try VocabularyPlan(models: models, base: base, recipe: recipe, file: "recipe.yml")
    }

    private func rows(_ plan: VocabularyPlan, holders: [Int] = [0, 1]) throws -> [String] {
        let names = ["a", "b", "c", "d"]
        return try plan.rowMaps(holders: holders).map { map in
            #expect(map.rowCount == plan.rowCount)
            return map.described(holders.map { names[$0] }).joined(separator: " ")
        }
    }

    private func texts(_ plan: VocabularyPlan) -> [String?] { plan.tokens.map { $0?.string } }

    // MARK: Sources of the vocabulary

    @Test func union() throws {
        let plan = try plan(pair(), SmallTokenizers.recipe(.union))
        #expect(texts(plan) == ["a", "b", "c", "ab", "Ġ", "<s>", "<pad>", "d", "bd", "<tool>", "<far>"])
        #expect(try rows(plan) == ["a0 a1 a2 a3 a4 a5 a6 b2 b3 b6 0", "b1 b0 b7 a3 b4 b5 a6 b2 b3 b6 0"])
        #expect(plan.changes.appended.map(\.text.string) == ["d", "bd", "<tool>", "c", "<far>"])
        #expect(plan.changes.appended.map(\.id) == [7, 8, 9, 2, 10])
        #expect(plan.changes.appended.map(\.normalized) == [true, true, false, true, false])
        #expect(plan.changes.appended.map(\.singleWord) == [false, false, true, false, false])
        #expect(plan.remarks.contains { $0.contains("no model has a row for 1 tokens; their rows are zero: '<far>'") })
        #expect(plan.remarks.contains { $0.contains("define 1 added tokens differently") && $0.contains("'<s>'") })
    }

    @Test func base() throws {
        let plan = try plan(pair(), SmallTokenizers.recipe(.base))
        #expect(texts(plan) == ["a", "b", "c", "ab", "Ġ", "<s>", "<pad>"])
        #expect(try rows(plan) == ["a0 a1 a2 a3 a4 a5 a6", "b1 b0 b7 a3 b4 b5 a6"])
        #expect(plan.changes.isEmpty)
    }

    @Test func theBaseLosesTokensWithoutRows() throws {
        let models = [try model("a", SmallTokenizers.first, rows: 6), try model("b", SmallTokenizers.second, rows: 8)]
        let plan = try plan(models, SmallTokenizers.recipe(.base))
        #expect(texts(plan) == ["a", "b", "c", "ab", "Ġ", "<s>"])
        #expect(plan.changes.removed == [6])
        let union = try self.plan(models, SmallTokenizers.recipe(.union))
        #expect(texts(union) == ["a", "b", "c", "ab", "Ġ", "<s>", "d", "bd", "<tool>", "<far>"])
    }

    @Test func anotherModelsTokenizerStaysWhole() throws {
        let plan = try plan(pair(), SmallTokenizers.recipe(.model(SmallTokenizers.reference("b"))))
        #expect(texts(plan) == ["b", "a", "d", "bd", "Ġ", "<s>", "<tool>", "c", "<far>"])
        #expect(try rows(plan) == ["a1 a0 b2 b3 a4 a5 b6 a2 0", "b0 b1 b2 b3 b4 b5 b6 b7 0"])
        #expect(plan.primary == 1 && plan.changes.isEmpty)
    }

    @Test func withoutABaseTheFirstModelIsItAndNoRowComesFirst() throws {
        let models = try pair() + [model("c", SmallTokenizers.second, rows: 9), model("d", nil, rows: 6)]
        // `d` has no tokenizer and is taken to have a's, of which it holds 6 rows.
        let withoutBase = try plan(models, SmallTokenizers.recipe(.union), base: nil)
        #expect(
            try rows(withoutBase, holders: [0, 1, 2, 3]) == [
                "a0 a1 a2 a3 a4 a5 a6 b2+c2 b3+c3 b6+c6 c8", "b1 b0 b7 a3+d3 b4 b5 a6 b2 b3 b6 c8",
                "c1 c0 c7 a3+d3 c4 c5 a6 c2 c3 c6 c8", "d0 d1 d2 d3 d4 d5 a6 b2+c2 b3+c3 b6+c6 c8",
            ])
        let withBase = try plan(models, SmallTokenizers.recipe(.union))
        #expect(try rows(withBase, holders: [0, 1, 2, 3])[1] == "b1 b0 b7 a3 b4 b5 a6 b2 b3 b6 c8")
        // A tensor that the base does not hold.
        #expect(try rows(withBase, holders: [1, 2, 3])[0] == "b1 b0 b7 d3 b4 b5 0 b2 b3 b6 c8")
    }

    @Test func appendedTokensStandInFileOrderWhereverTheBaseIs() throws {
        let third = SmallTokenizers.bpe(["x", "d", "y"], merges: [], added: [SmallTokenizers.added(3, "<t>")])
        let models = [
            try model("c", third, rows: 4), try model("a", SmallTokenizers.first, rows: 8),
            try model("b", SmallTokenizers.second, rows: 8),
        ]
        let plan = try plan(models, SmallTokenizers.recipe(.union), base: 1)
        #expect(texts(plan).dropFirst(7) == ["x", "d", "y", "bd", "<t>", "<tool>", "<far>"])
        #expect(plan.primary == 1)
    }

    @Test func spellingsOfOneCharacterAreTwoTokens() throws {
        let text = SmallTokenizers.bpe(["\u{e9}", "e\u{301}"], merges: [], added: [SmallTokenizers.added(2, "<s>")])
        let plan = try plan([model("a", text, rows: 3)], SmallTokenizers.recipe(.base))
        #expect(try rows(plan, holders: [0]) == ["a0 a1 a2"])
    }

    // MARK: Tokens of the recipe

    @Test func tokensFillGapsAndForcedOnesReplace() throws {
        let a = SmallTokenizers.reference("a"), b = SmallTokenizers.reference("b")
        let recipe = SmallTokenizers.recipe(
            .base,
            [
                .init("ab", source: .model(a)), .init("<pad>", source: .modelToken(b, .text("<tool>"))),
                .init("c", source: .modelToken(a, .id(7)), force: true), .init("Ġ", source: .zero),
                .init("a", source: .model(b), force: true), .init("<new>", source: .modelToken(b, .id(7))),
                .init("<null>", source: .zero), .init("b"),
            ])
        let plan = try plan(pair(), recipe)
        #expect(texts(plan).dropFirst(7) == ["<new>", "<null>"])
        #expect(try rows(plan) == ["b1 a1 a7 a3 a4 a5 a6 b7 0", "b1 b0 a7 a3 b4 b5 b6 b7 0"])
        #expect(plan.changes.appended.map(\.id) == [7, 8])
        #expect(!plan.remarks.contains { $0.contains("zeros") })
    }

    @Test func paddingRoundsUp() throws {
        for (multiple, count) in [(1, 7), (4, 8), (7, 7), (64, 64)] {
            let plan = try plan(pair(), SmallTokenizers.recipe(.base, padTo: multiple))
            #expect(plan.rowCount == count)
            #expect(try rows(plan)[0].hasSuffix(Array(repeating: " ~", count: count - 7).joined()))
        }
    }

    @Test func gapsArePadding() throws {
        let text = #"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 3}, "merges": []}}"#
        let plan = try plan([model("a", text, rows: 8)], SmallTokenizers.recipe(.base))
        #expect(try rows(plan, holders: [0]) == ["a0 ~ ~ a3"])
    }

    @Test func impossibleSourcesAreNamedWithTheirLine() throws {
        let a = SmallTokenizers.reference("a"), b = SmallTokenizers.reference("b"), x = SmallTokenizers.reference("x")
        let models = try pair()
        func problem(_ token: TokenizerRecipe.Token) -> TesseraError? {
            let problems = #expect(throws: Problems.self) {
                _ = try plan(models, SmallTokenizers.recipe(.base, [token])).rowMaps(holders: [0, 1])
            }
            return problems?.all.count == 1 ? problems?.all.first : nil
        }
        for (token, words) in [
            (TokenizerRecipe.Token("<new>", line: 9), "needs a 'source'"), (.init("a", force: true, line: 9), "it is forced"),
            (.init("<new>", source: .model(a), line: 9), "has no row for it"),
            (.init("<new>", source: .modelToken(b, .text("<far>")), line: 9), "has no row for it"),
            (.init("<new>", source: .modelToken(b, .id(8)), line: 9), "has no row for it"),
            (.init("<new>", source: .modelToken(b, .text("none")), line: 9), "has no row for it"),
            (.init("<new>", source: .model(x), line: 9), "not one of the merged models"),
        ] {
            let found = problem(token)
            #expect(found?.problem.contains(words) == true, "\(token): \(found?.description ?? "nothing")")
            #expect(found?.line == 9 && found?.file == "recipe.yml")
        }
        #expect(throws: Problems.self) { try plan(models, SmallTokenizers.recipe(.model(x))) }
        #expect(throws: Problems.self) { try plan([model("n", nil, rows: 3)], SmallTokenizers.recipe(.union)) }
        #expect(throws: Problems.self) { try plan(models, SmallTokenizers.recipe(.base, padTo: .max)) }
    }

    @Test func theConfigGetsTheNumberOfRows() throws {
        let plan = try plan(pair(), SmallTokenizers.recipe(.union, padTo: 8))
        for (before, after) in [
            (#"{"vocab_size": 8}"#, #"{"vocab_size": 16}"#),
            (#"{"text_config": {"x": 1, "vocab_size":8}}"#, #"{"text_config": {"x": 1, "vocab_size":16}}"#),
        ] {
            var config = try JSONText(Array(before.utf8))
            #expect(plan.resize(&config))
            #expect(String(decoding: config.bytes, as: UTF8.self) == after)
        }
    }

    // MARK: Recipes without a word on it

    @Test func differentVocabulariesAreProblems() throws {
        let models = try pair()
        func problems(_ models: [VocabularyModel]) -> [TesseraError] {
            VocabularyCheck(models: models, base: nil, file: "recipe.yml").problems
        }
        let found = try #require(problems(models).first)
        #expect(found.problem.contains("different tokens from 'a' at 5 ids (0 is \"b\" here and \"a\" there, 1 is"))
        #expect(found.advice?.contains("tokenizer_source: union") == true)
        #expect(found.problem.components(separatedBy: " here and ").count == 6)
        #expect(problems([models[0], models[0]]) == [])
        #expect(problems([models[0], try model("n", nil, rows: 99)]) == [])
        // One more token in a spare row is no difference; a matrix of another size is one.
        let more = SmallTokenizers.first.replacingOccurrences(
            of: "\n  ],\n  \"normalizer\"", with: ",\n\(SmallTokenizers.added(7, "<new>"))\n  ],\n  \"normalizer\"")
        #expect(problems([models[0], try model("more", more, rows: 8)]) == [])
        let resized = problems([models[0], try model("more", more, rows: 9)])
        #expect(resized.first?.problem.contains("has 9 rows instead of the 8 of 'a'") == true)
        #expect(resized.first?.problem.contains("7 is \"<new>\" here and no token there") == true)
    }
}
