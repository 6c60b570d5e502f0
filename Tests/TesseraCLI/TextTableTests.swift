import Testing

@testable import TesseraCLI

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
        var table = TextTable([("A\u{1b}[2J", .left)])
        table.add(["x\n\u{1b}[2J"])
        #expect(table.lines.count == 2 && !table.lines.joined().unicodeScalars.contains { $0.value < 0x20 })
    }

    @Test func wideTablesAreNarrowedWhereTextIsLong() {
        var table = TextTable([("NAME", .left), ("SIZE", .right), ("PATH", .left)])
        table.add(["short", "12345", "/data/models/llama/merged/final/out"])
        #expect(table.lines(fitting: 40) == ["NAME    SIZE  PATH", "short  12345  /data/models…ged/final/out"])
        #expect(table.lines(fitting: 400) == table.lines)
        #expect(table.lines(fitting: 10).allSatisfy { $0.columns <= 10 })
    }

    @Test func longColumnsShareTheLoss() {
        var table = TextTable([("A", .left), ("B", .left)])
        table.add([String(repeating: "a", count: 30), String(repeating: "b", count: 20)])
        #expect(table.lines(fitting: 32).last == "aaaaaaa…aaaaaaa  bbbbbbb…bbbbbbb")
    }

    @Test func expendableColumnsGoFirst() {
        var table = TextTable([("NAME", .left), ("SIZE", .right), ("PATH", .left)], expendable: ["SIZE", "NAME"])
        table.add(["short", "12345", "/data/models/llama/merged/final/out"])
        #expect(table.lines(fitting: 40)[0] == "NAME    SIZE  PATH")
        #expect(table.lines(fitting: 28) == ["NAME   PATH", "short  /data/mode…/final/out"])
        #expect(table.lines(fitting: 20) == ["PATH", "/data/mod…/final/out"])
    }

    // MARK: Widths

    @Test func textIsCutInTheMiddle() {
        #expect("abcdefghij".shortened(toColumns: 10) == "abcdefghij")
        #expect("abcdefghij".shortened(toColumns: 5) == "ab…ij")
        #expect("abcdefghij".shortened(toColumns: 1) == "…")
        #expect("日本語日本語".shortened(toColumns: 6) == "日…語")
    }

    @Test func coloursTakeNoSpaceAndWideCharactersTwoCells() {
        #expect("\u{1b}[36mab\u{1b}[0m".columns == 2)
        #expect("日本".columns == 4)
        #expect("…━é".columns == 3)
    }

    @Test func linesBreakBetweenWords() {
        #expect("one two three four".wrapped(toColumns: 9) == ["one two", "three", "four"])
        #expect("note: one two".wrapped(toColumns: 9, indent: 6) == ["note: one", "      two"])
        #expect("unbreakable".wrapped(toColumns: 4) == ["unbreakable"])
    }
}
