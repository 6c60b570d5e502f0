import Core
import Testing

@Suite struct ByteOrderTests {
    @Test(arguments: [
        ("layers.2", "layers.10"), ("layers.2.b", "layers.10.a"), ("a", "a.0"), ("a9", "a10"), ("a9b", "a10"), ("1", "a"),
        ("x.99999999999999999999", "x.100000000000000000000"), ("x.007", "x.7"), ("x.07.b", "x.8.a"), ("", "a"), ("a.1", "a.1.0"),
        ("e\u{301}", "\u{e9}"), ("0", "00"),
    ])
    func peoplesOrder(first: String, second: String) {
        #expect(first.precedesNaturally(second) && !second.precedesNaturally(first))
        #expect(!first.precedesNaturally(first))
    }

    @Test func listsOfNames() {
        #expect(["b", "a10", "a2", "\u{e9}", "e\u{301}"].sortedByBytes() == ["a10", "a2", "b", "e\u{301}", "\u{e9}"])
        #expect(["a", "c", "d"].mergedByBytes(["b", "c", "e"]) == ["a", "b", "c", "d", "e"])
        #expect([].mergedByBytes(["a"]) == ["a"] && ["a"].mergedByBytes([]) == ["a"])
        #expect(["e\u{301}"].mergedByBytes(["\u{e9}"]).count == 2)
    }

    @Test(arguments: [
        ("model.mlp.up", "mlp", true), ("abc", "", true), ("ab", "abc", false), ("aab", "ab", true), ("abc", "d", false),
    ])
    func parts(whole: String, part: String, holds: Bool) { #expect(whole.holds(part) == holds) }
}
