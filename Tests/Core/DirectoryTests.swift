import Foundation
import TestSupport
import Testing

@testable import Core

/// Nobody is led out of a directory, on kernels with openat2(2) and without.
@Suite(.serialized) struct DirectoryTests {
    private let temporary: TemporaryDirectory

    init() throws {
        temporary = try TemporaryDirectory()
        for name in ["root/a/b", "secret"] {
            try FileManager.default.createDirectory(atPath: "\(temporary.path)/\(name)", withIntermediateDirectories: true)
        }
        try temporary.write("inside", to: "root/a/b/file")
        try temporary.write("secret", to: "secret/file")
        for (link, target) in [
            ("root/absolute", "\(temporary.path)/secret"), ("root/relative", "../secret"), ("root/a/up", "../../secret"),
            ("root/file", "../secret/file"), ("root/within", "a/b"), ("root/self", "self"), ("root/proc", "/proc/self/root"),
        ] {
            try FileManager.default.createSymbolicLink(atPath: "\(temporary.path)/\(link)", withDestinationPath: target)
        }
    }

    private func contents(_ relative: String, _ directory: Directory) throws -> String {
        let file = try ReadableFile(relative, in: directory)
        return String(decoding: try file.bytes(0..<file.size), as: UTF8.self)
    }

    @Test(arguments: [false, true])
    func nothingLeadsOut(walks: Bool) throws {
        let root = try Directory("\(temporary.path)/root", walks: walks)
        #expect(try contents("a/b/file", root) == "inside")
        #expect(try contents("./a//b/file", root) == "inside")
        #expect(try contents("file", root.directory("a/b")) == "inside")
        for path in [
            "../secret/file", "a/../../secret/file", "absolute/file", "relative/file", "a/up/file", "file", "within/file", "self",
            "/etc/passwd", "proc/etc/passwd", "a/b/../../file",
        ] {
            let error = #expect(throws: TesseraError.self, "\(path)") { try contents(path, root) }
            #expect(error?.code == .notAllowed, "\(path): \(error)")
        }
        for path in ["absolute", "relative", "a/up", "within", "..", "/"] {
            #expect(#expect(throws: TesseraError.self) { try root.directory(path) }?.code == .notAllowed, "\(path)")
        }
        for (path, code) in [("a/none", TesseraError.Code.inputMissing), ("a/b/file/x", .inputMissing)] {
            #expect(#expect(throws: TesseraError.self) { try contents(path, root) }?.code == code)
        }
        // Neither way creates anything through a link.
        #expect(throws: TesseraError.self) { try root.write("file", [1]) }
        #expect(throws: TesseraError.self) { _ = try OutputFile(creating: "relative/x", in: root, size: 1, reserve: false) }
        #expect(try contents("file", Directory("\(temporary.path)/secret")) == "secret")
        #expect(try filesBelow("\(temporary.path)/secret") == ["file"])
    }

    @Test(arguments: [false, true])
    func whatIsRemovedIsInside(walks: Bool) throws {
        let parent = try Directory(temporary.path, walks: walks)
        #expect(try parent.directory("root").foldersBelow() == ["a/b", "a"])
        parent.removeDirectory("root")
        #expect(temporary.names == ["secret"])
        #expect(try filesBelow("\(temporary.path)/secret") == ["file"])
    }
}
