import Core
import Testing

/// Paths are cut at the byte of a slash, whatever follows the slash.
@Suite struct FilePathTests {
    private let mark = "\u{301}"

    @Test func aMarkBehindASlashIsPartOfAName() {
        #expect(
            FilePath.components(of: "/root/../\(mark)x").map { Array($0.utf8) }
                == ["root", "..", "\(mark)x"].map { Array($0.utf8) })
        #expect(FilePath.isAbsolute("/\(mark)x"))
        #expect(Array(FilePath.parent(of: "/root/\(mark)x").utf8) == Array("/root".utf8))
        #expect(FilePath.parent(of: "/\(mark)x") == "/")
        #expect(!FilePath.isName("a/\(mark)x"))
    }

    @Test(arguments: [
        ("/models/a", "/models", "a"), ("/models", "/models", "."), ("/models/a", "/", "models/a"),
        ("/modelsx/a", "/models", nil),
        ("/modèles/a", "/modèles", "a"), ("/mode\u{300}les/a", "/modèles", nil), ("/a/\u{301}x", "/a", "\u{301}x"),
    ])
    func relativePathsAreThoseBelowADirectory(path: String, directory: String, relative: String?) {
        #expect(FilePath.relative(path, to: directory).map { Array($0.utf8) } == relative.map { Array($0.utf8) })
    }

    @Test(arguments: [
        ("a", true), ("a/b.c", true), ("a/\u{301}b", true), ("", false), ("/a", false), ("a/", false), ("a//b", false),
        ("a/../b", false), (".a", false), ("a/.b", false),
    ])
    func plainPathsStayBelowTheirDirectory(path: String, isPlain: Bool) { #expect(FilePath.isPlain(path) == isPlain) }

    @Test(arguments: [("a", true), ("", false), (".", false), ("..", false), ("a/b", false), ("a\0", false), ("...", true)])
    func namesAreSingleComponents(name: String, isName: Bool) { #expect(FilePath.isName(name) == isName) }
}
