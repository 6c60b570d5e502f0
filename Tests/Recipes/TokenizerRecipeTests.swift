import Core
import Recipes
import Testing

@Suite struct TokenizerRecipeTests {
    private static let head = "merge_method: linear\nmodels:\n- model: a\n- model: b\n"

    private func parse(_ lines: String) throws -> Recipe { try Recipe.parse(text: Self.head + lines, file: "recipe.yml") }

    private func model(_ path: String) -> ModelReference { ModelReference(model: .init(path: path)) }

    @Test(arguments: [("union", TokenizerRecipe.Source.union), ("base", .base), ("'./c@main'", nil)])
    func theShortForm(written: String, source: TokenizerRecipe.Source?) throws {
        let recipe = try #require(try parse("tokenizer_source: \(written)\n").tokenizer)
        let other = ModelReference(model: .init(path: "./c", revision: "main"))
        #expect(recipe == TokenizerRecipe(source: Located(source ?? .model(other), line: 5)))
    }

    @Test func theWholeForm() throws {
        let recipe = try parse(
            """
            tokenizer:
              source: base
              tokens:
                <|im_start|>:
                  source: b
                "<|im_end|>":
                  source: {kind: model_token, model: a, token: "</s>"}
                  force: true
                <x>: {source: {kind: model_token, model: {model: {path: a+b}}, token_id: 17}}
                'null': {source: {kind: zero}, force: no}
                plain:
              pad_to_multiple_of: 64
            chat_template: auto
            """)
        #expect(recipe.warnings == [])
        let tokenizer = try #require(recipe.tokenizer)
        #expect(tokenizer.source == Located(.base, line: 6))
        #expect(tokenizer.padToMultipleOf == 64)
        #expect(
            tokenizer.tokens == [
                .init("<|im_start|>", source: .model(model("b")), line: 8),
                .init("<|im_end|>", source: .modelToken(model("a"), .text("</s>")), force: true, line: 10),
                .init("<x>", source: .modelToken(model("a+b"), .id(17)), line: 13), .init("null", source: .zero, line: 14),
                .init("plain", line: 15),
            ])
        #expect(tokenizer.models.map(\.value.path) == ["b", "a", "a+b"])
        #expect(recipe.chatTemplate == Located(.auto, line: 17))
    }

    @Test func unionIsTheDefaultSource() throws {
        #expect(try parse("tokenizer: {pad_to_multiple_of: 8}\n").tokenizer?.source == Located(.union, line: 5))
        #expect(try parse("tokenizer: null\ntokenizer_source: base\n").tokenizer?.source == Located(.base, line: 6))
        #expect(try parse("").tokenizer == nil)
    }

    @Test(arguments: [("chatml", ChatTemplateSetting.named(.chatml)), ("llama3", .named(.llama3)), ("auto", .auto)])
    func templateNames(written: String, setting: ChatTemplateSetting) throws {
        #expect(try parse("chat_template: \(written)\n").chatTemplate?.value == setting)
    }

    @Test func aTemplateMayBeWritten() throws {
        let text = "{% for message in messages %}{{ message.content }}{% endfor %}\n"
        #expect(try parse("chat_template: |\n  \(text)").chatTemplate?.value == .literal(text))
    }

    @Test(arguments: [
        ("tokenizer_source: base\ntokenizer: {source: union}\n", 6, "has both"),
        ("tokenizer: union\n", 5, "'tokenizer' must be a map"),
        ("tokenizer_source: model:a\n", 5, "not a model reference"), ("tokenizer_source: a+b+c\n", 5, "not a model reference"),
        ("tokenizer: {source: [a]}\n", 5, "a model reference must be a path"),
        ("tokenizer:\n  pad_to_multiple_of: 0\n", 6, "positive integer"),
        ("tokenizer:\n  pad_to_multiple_of: 1.5\n", 6, "positive integer"),
        ("tokenizer:\n  tokens: [a]\n", 6, "'TEXT: {source: MODEL}' entries"),
        ("tokenizer:\n  tokens:\n    x: a\n", 7, "the token 'x' has no 'source'"),
        ("tokenizer:\n  tokens:\n    '': {}\n", 7, "must not be empty"),
        ("tokenizer:\n  tokens:\n    x: {source: a, force: 7}\n", 7, "'force' must be true or false"),
        (
            "tokenizer:\n  tokens:\n    x: {source: {kind: zeros}}\n", 7,
            "'kind' is 'zeros'; it must be 'zero' or 'model_token' — did you mean 'zero'?"
        ),
        ("tokenizer:\n  tokens:\n    x: {source: {kind: model_token, token: y}}\n", 7, "has no 'model'"),
        ("tokenizer:\n  tokens:\n    x: {source: {kind: model_token, model: a}}\n", 7, "either 'token' or 'token_id'"),
        (
            "tokenizer:\n  tokens:\n    x:\n      source: {kind: model_token, model: a, token: y, token_id: 1}\n", 8,
            "either 'token'"
        ),
        ("tokenizer:\n  tokens:\n    x: {source: {kind: model_token, model: a, token_id: -1}}\n", 7, "non-negative integer"),
        ("chat_template: chatlm\n", 5, "known name or a whole template — did you mean 'chatml'?"),
        ("chat_template: a text without braces in it\n", 5, "or a whole template"), ("chat_template: [a]\n", 5, "whole template"),
    ])
    func saysWhatIsWrongAndWhere(lines: String, line: Int, words: String) {
        let problems = #expect(throws: Problems.self) { try parse(lines) }?.all ?? []
        #expect(problems.count == 1 && problems.first?.line == line, "\(problems)")
        #expect(problems.first?.description.contains(words) == true, "\(problems)")
    }

    @Test func slipsAreWarnings() throws {
        let recipe = try parse("tokenizer:\n  sorce: base\n  tokens:\n    x: {source: a, forced: true}\n")
        #expect(recipe.warnings.map(\.line) == [6, 8])
        #expect(recipe.warnings.first?.advice == "did you mean 'source'?")
    }
}
