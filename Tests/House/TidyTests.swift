import Foundation
import TestSupport
import Testing

/// What swift format and the compiler do not check: width and length, declarations that nothing uses, and notes that were left.
@Suite struct TidyTests {
    /// Lines of a file. What grows longer has more than one duty: split it.
    private static func fileLimit(_ file: SourceTree.File) -> Int? {
        if file.hasExtension("md") { return nil }
        if file.hasExtension("c", "h") { return 900 }
        return file.isIn("Sources") ? 400 : 600
    }

    private static let functionLimit = 80

    /// Swift, C, Python, shell and the prose of Markdown keep one width, that of `.swift-format`. In Markdown, tables, code
    /// blocks, and lines of one unbreakable word (a link) may be wider.
    @Test func linesKeepTheWidth() throws {
        var problems: [String] = []
        defer { report(problems) }
        struct Format: Decodable { let lineLength: Int }
        let json = try Data(contentsOf: URL(fileURLWithPath: "\(Repository.root)/.swift-format"))
        let limit = try JSONDecoder().decode(Format.self, from: json).lineLength
        for file in SourceTree.files {
            var isCode = false
            for (index, line) in file.lines.enumerated() {
                if file.hasExtension("md") {
                    if line.drop(while: { $0 == " " }).hasPrefix("```") { isCode.toggle() }
                    let start = line.drop { $0 == " " }
                    if isCode || start.hasPrefix("|") || !start.drop(while: { $0 != " " }).dropFirst().contains(" ") { continue }
                }
                guard line.utf8.count > limit, line.count > limit else { continue }
                problems.append(
                    "\(file.path):\(index + 1): \(line.count) characters; break the line, at most \(limit) are allowed")
            }
        }
    }

    @Test func filesAndFunctionsAreShort() {
        var problems: [String] = []
        defer { report(problems) }
        for file in SourceTree.files {
            if let limit = Self.fileLimit(file), file.lines.count > limit + 1 {
                problems.append("\(file.path): \(file.lines.count - 1) lines; split the file, at most \(limit) are allowed")
            }
        }
        for (file, code) in Code.swift {
            for declaration in code.declarations where ["func", "init", "subscript"].contains(declaration.keyword) {
                let count = code.length(of: declaration)
                guard count > Self.functionLimit else { continue }
                problems.append(
                    "\(file.path):\(declaration.line): \(declaration.name) has \(count) lines; split it, at most "
                        + "\(Self.functionLimit) are allowed")
            }
        }
    }

    /// Names that the compiler, a library or a tool calls, or that only tests have reason to call.
    private static let usedElsewhere: Set = [
        // The compiler and the standard library.
        "callAsFunction", "description", "encode", "hash", "init", "main", "makeIterator", "next", "subscript", "TesseraCommand",
        // ArgumentParser.
        "configuration", "defaultValueDescription", "validate",
        // SwiftNIO's channel handlers, and Hummingbird's responses.
        "InboundIn", "InboundOut", "OutboundIn", "OutboundOut", "channelActive", "channelInactive", "channelRead",
        "channelWritabilityChanged", "errorCaught", "flush", "handlerAdded", "handlerRemoved", "response",
        "triggerUserOutboundEvent", "userInboundEventTriggered",
        // Tests count what the registries keep of ended jobs.
        "entryCount",
        // Tests compare the CPU's CRC instruction with the table, which other CPUs use.
        "checksumByTable",
    ]

    /// A declaration is used where its name occurs in `Sources` once more. A function is used where a call's labels fit it as
    /// well, or where its name stands alone.
    @Test func everyDeclarationIsUsed() {
        var problems: [String] = []
        defer { report(problems) }
        let uses = Uses(Code.sources.map(\.code))
        for (file, code) in Code.sources {
            let functions = Uses.functions(of: code)
            for declaration in code.declarations
            where declaration.keyword != "extension" && !Self.usedElsewhere.contains(declaration.name) {
                let isUsed =
                    functions[declaration.line].map(uses.contains) ?? uses.contains(declaration.name)
                if !isUsed {
                    problems.append("\(file.path):\(declaration.line): nothing in Sources uses \(declaration.name); remove it")
                }
            }
        }
    }

    /// The table of kernels in C is a struct of function pointers; Swift calls each by its name.
    @Test func everyKernelIsUsed() throws {
        var problems: [String] = []
        defer { report(problems) }
        let header = try #require(SourceTree.files.first { $0.path == "Sources/CTensorKernels/include/tensor_kernels.h" })
        let used = Set(Code.sources.filter { $0.file.isIn("Sources/TensorKernels") }.flatMap { $0.code.lines.joined() })
        for (index, line) in header.lines.enumerated() {
            guard let start = line.range(of: "(*"), let end = line[start.upperBound...].firstIndex(of: ")") else { continue }
            let name = line[start.upperBound..<end].split(separator: " ").last.map(String.init) ?? ""
            if !used.contains(name) {
                problems.append("\(header.path):\(index + 1): nothing in Sources calls the kernel \(name); remove it")
            }
        }
    }

    @Test func nothingIsLeftForLater() {
        var problems: [String] = []
        defer { report(problems) }
        let marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
        for file in SourceTree.files {
            guard marks.contains(where: { file.text.contains($0) }) else { continue }
            for (index, line) in file.lines.enumerated() {
                for mark in marks where line.contains(mark) {
                    problems.append("\(file.path):\(index + 1): \(mark); do it, or file an issue and remove the note")
                }
            }
        }
    }
}

/// The Swift files, parsed once for all checks.
enum Code {
    static let swift = SourceTree.swift.map { (file: $0, code: SwiftCode($0.text)) }
    static let sources = swift.filter { $0.file.isIn("Sources") }
}

extension SwiftCode {
    /// Lines from a declaration to the closing brace, which swift format indents as it does the declaration.
    func length(of declaration: Declaration) -> Int {
        let start = declaration.line - 1
        var depth = 0
        for index in start..<lines.count {
            for token in lines[index] { depth += token == "{" ? 1 : token == "}" ? -1 : 0 }
            let isRequirement =
                index > start && depth == 0 && indentations[index] <= declaration.indentation && !lines[index].contains("{")
            if depth == 0 && (lines[index].contains("}") || isRequirement || lines[index].isEmpty) { return index - start + 1 }
        }
        return 1
    }
}

/// Records all problems of a check as one issue, one problem per line.
func report(_ problems: [String]) {
    if !problems.isEmpty { Issue.record(Comment(rawValue: problems.joined(separator: "\n"))) }
}
