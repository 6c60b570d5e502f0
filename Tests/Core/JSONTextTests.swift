import Core
import Foundation
import Synchronization
import Testing

@Suite struct JSONTextTests {
    private func edited(_ text: String, _ change: (inout JSONText) -> Void) throws -> String {
        var json = try JSONText(Array(text.utf8))
        change(&json)
        return String(decoding: json.bytes, as: UTF8.self)
    }

    @Test func changesAValueAndNothingElse() throws {
        let text = "{\n  \"b\" : 1e-05,\n  \"torch_dtype\":   \"bfloat16\" ,\n  \"nested\": {\"torch_dtype\": 1}, \"x\": NaN\n}\n"
        #expect(
            try edited(text) { $0.set("torch_dtype", to: "float32") }
                == text.replacingOccurrences(of: "\"bfloat16\"", with: "\"float32\""))
    }

    @Test(arguments: [
        ("{}", #"{"k": "v"}"#), ("{ }", #"{"k": "v" }"#), (#"{"a": 1}"#, #"{"a": 1,"k": "v"}"#),
        ("{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"k\": \"v\"\n}\n"),
    ])
    func addsAMember(before: String, after: String) throws {
        #expect(try edited(before) { $0.set("k", to: "v") } == after)
        #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(after.utf8)) }
    }

    @Test func readsByPath() throws {
        let json = try JSONText(Array(#"{"a": {"b": 12, "s": "größe\n", "f": true}, "list": [1, {"b": 2}]}"#.utf8))
        #expect(json.integer(["a", "b"]) == 12)
        #expect(json.string(["a", "s"]) == "größe\n")
        #expect(json.flag(["a", "f"]) == true)
        #expect(json.has(["list"]))
        #expect(!json.has(["list", "b"]) && !json.has(["a", "c"]) && !json.has(["c"]))
        #expect(json.string(["a", "b"]) == nil && json.integer(["a", "s"]) == nil)
    }

    @Test(arguments: [
        "", "[]", "{", "{}x", #"{"a" 1}"#, #"{"a": 1,}"#, #"{"a": 1, "a": 2}"#, #"{"a": tru}"#, #"{"a": 01x}"#, #"{"a": "x}"#,
        "{\"a\": \"\u{1}\"}",
        #"{"a": "\q"}"#, #"{"a": "\u12"}"#, #"{"a": "\ud800x"}"#, String(repeating: #"{"a":"#, count: 100),
    ])
    func refusesWhatIsNoObject(text: String) {
        #expect(throws: TesseraError.self) { try JSONText(Array(text.utf8)) }
    }

    @Test func elementsOfAText() {
        #expect(JSONText.elements(of: #" [1, "b", [2, 3]]"#) == ["1", "\"b\"", "[2, 3]"] && JSONText.elements(of: "[]") == [])
        #expect(JSONText.elements(of: "{}") == nil && JSONText.elements(of: "[1") == nil)
    }

    /// Long texts and many short ones are both given up.
    @Test(arguments: [(1, 100_000), (1000, 1)])
    func readingEndsWithItsTime(times: Int, elements: Int) throws {
        let text = Array("{\"a\": [\(Array(repeating: "0", count: elements).joined(separator: ","))]}".utf8), checks = Atomic(0)
        let error = #expect(throws: TesseraError.self) {
            try Effort.limited(by: { () throws(TesseraError) in
                guard checks.add(1, ordering: .relaxed).newValue < 300 else { throw TesseraError(.temporary, "enough") }
            }) {
                for _ in 0..<times { _ = try JSONText(text) }
            }
        }
        #expect(error?.problem == "enough" && checks.load(ordering: .relaxed) == 300)
        #expect(throws: Never.self) { try JSONText(text) }
    }

    @Test func quotesAsSerdeDoes() {
        #expect(JSONText.quoted("a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}é") == "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\u{7f}é\"")
    }
}
