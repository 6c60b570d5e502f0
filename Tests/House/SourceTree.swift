import Foundation
import TestSupport

/// The text files of the repository, as the checks of this folder read them.
struct SourceTree {
    struct File {
        /// Relative to the repository's root.
        let path: String
        let text: String
        let lines: [Substring]

        init(path: String, text: String) {
            self.path = path
            self.text = text
            lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        }

        func hasExtension(_ extensions: String...) -> Bool {
            extensions.contains { path.hasSuffix(".\($0)") }
        }

        /// Shell and Python programs often have no extension.
        var isScript: Bool { text.hasPrefix("#!") }

        func isIn(_ folder: String) -> Bool { path.hasPrefix("\(folder)/") }
    }

    /// Recipes, configurations and tensors that other tools wrote are data, not sources.
    private static let data = ["Tests/Golden/adapters", "Tests/Golden/cases", "Tests/Golden/seed-cases", "Tests/Golden/models"]
    private static let extensions: Set = ["swift", "c", "h", "py", "sh", "md"]

    static let files: [File] =
        ["Sources", "Tests", "docs", "Cluster", "Deploy", ".ci"].flatMap { files(under: $0) }
        + names(in: "").compactMap { file($0) }
    static let swift = files.filter { $0.hasExtension("swift") }
    static let sources = swift.filter { $0.isIn("Sources") }
    static let markdown = files.filter { $0.hasExtension("md") }

    static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: "\(Repository.root)/\(path)") }

    static func names(in folder: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "\(Repository.root)/\(folder)")) ?? []).sorted()
    }

    private static func files(under folder: String) -> [File] {
        (FileManager.default.enumerator(atPath: "\(Repository.root)/\(folder)")?.allObjects ?? [])
            .compactMap { $0 as? String }.sorted().map { "\(folder)/\($0)" }
            .filter { path in !data.contains { path.hasPrefix("\($0)/") } }.compactMap { file($0) }
    }

    /// Nil for a directory and for what is neither a source, nor a program, nor a page.
    private static func file(_ path: String) -> File? {
        let name = path.split(separator: "/").last ?? ""
        let suffix = name.split(separator: ".", omittingEmptySubsequences: false).dropFirst().last.map(String.init)
        guard suffix.map(extensions.contains) ?? true,
            let text = try? String(contentsOfFile: "\(Repository.root)/\(path)", encoding: .utf8),
            suffix != nil || text.hasPrefix("#!")
        else { return nil }
        return File(path: path, text: text)
    }
}
