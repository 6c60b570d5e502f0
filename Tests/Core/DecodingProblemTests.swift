import Core
import Foundation
import Testing

@Suite struct DecodingProblemTests {
    private struct Text: Decodable {
        struct Part: Decodable { let name: String }
        let parts: [Part]
    }

    @Test(arguments: [
        (#"{"parts": [{"name": "a"}, {"name": 1}]}"#, "parts[1].name: expected to decode"),
        (#"{"parts": [{}]}"#, "parts[0]: has no 'name'"),
        ("{}", "has no 'parts'"), (#"{"parts": null}"#, "parts: "), ("x", "the given data was not valid JSON."),
    ])
    func saysWhere(text: String, words: String) throws {
        let error = #expect(throws: DecodingError.self) { try JSONDecoder().decode(Text.self, from: Data(text.utf8)) }
        #expect(error?.decodingProblem.hasPrefix(words) == true, "\(error?.decodingProblem ?? "")")
    }
}
