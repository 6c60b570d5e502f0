import Testing

@testable import TesseraCLI

@Suite struct SVGTests {
    /// The name of a model is text, whatever it is.
    @Test func textIsEscaped() {
        var drawing = SVG(width: 10, height: 20)
        drawing.text("<a & \"b\">", x: 1, y: 2.25, anchor: .end)
        let document = drawing.document(title: "\u{1b}[2J<")
        #expect(
            document.contains(#"<text x="1.0" y="2.3" text-anchor="end" >&lt;a &amp; &quot;b&quot;&gt;</text>"#), "\(document)")
        #expect(document.hasPrefix(#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10.0 20.0""#))
        #expect(!document.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" } && !document.contains("J<"))
    }
}
