import Core
import Foundation
import Testing

@Suite struct PrintableTextTests {
    @Test(arguments: [
        ("plain/é 漢字", "plain/é 漢字"), ("a\nerror: forged", #"a\nerror: forged"#), ("\u{1b}[2J", #"\u{001B}[2J"#),
        ("a\u{202e}b", #"a\u202Eb"#), ("\u{9b}31m", #"\u009B31m"#),
        ("a\u{200b}b", #"a\u200Bb"#), ("a\u{e0041}", #"a\u{E0041}"#), ("\u{feff}a", #"\uFEFFa"#),
    ])
    func whatMovesTheCursorIsEscaped(text: String, printable: String) {
        #expect(text.printable.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f && $0.value != 0x9b })
        #expect((text == text.printable) == (text == printable))
    }

    /// Encoders of JSON escape what is below a space, and leave the rest.
    @Test(arguments: ["\u{9b}31m", "a\u{202e}b\u{2028}", "\u{e0041}", "é 漢字 😀", "\u{1b}\""])
    func whatMovesTheCursorIsEscapedInJSON(text: String) throws {
        let json = String(decoding: try JSONEncoder().encode(["key": text]), as: UTF8.self).printableJSON
        #expect(json.printable == json)
        #expect(try JSONDecoder().decode([String: String].self, from: Data(json.utf8)) == ["key": text])
    }

    @Test func errorsStayOnOneLine() {
        let error = TesseraError(.badData, "x\ny", file: "f\u{1b}[1m", tensor: "t\r")
        #expect(!error.description.unicodeScalars.contains { $0.value < 0x20 })
    }
}
