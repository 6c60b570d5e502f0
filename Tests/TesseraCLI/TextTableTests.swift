import TesseraCLI
import Testing

@Suite struct TextTableTests {
    @Test func columnsFitTheirContents() {
        var table = TextTable([("NAME", .left), ("SIZE", .right)])
        table.add(["a", "10"])
        table.add(["longer", "9"])
        #expect(table.lines == ["NAME    SIZE", "a         10", "longer     9"])
    }

    @Test func linesEndWithoutSpaces() {
        var table = TextTable([("A", .left), ("B", .left)])
        table.add(["x", ""])
        #expect(table.lines == ["A  B", "x"])
    }

    /// A peer's name must not move the cursor.
    @Test func cellsAreOnOneLine() {
        var table = TextTable([("A", .left)])
        table.add(["x\n\u{1b}[2J"])
        #expect(table.lines.count == 2 && !table.lines.joined().unicodeScalars.contains { $0.value < 0x20 })
    }
}
