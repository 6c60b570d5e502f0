import Foundation
import Testing

/// What the pages name exists: types, members, values, files, and the targets of links.
@Suite struct DocumentTests {
    /// Names of other systems, and of things that are not in the code.
    private static let foreign: Set = [
        "BeginTime",  // Slurm
        "ContainerCreating", "OOMKilled", "fsGroup",  // Kubernetes
        "None",  // Python
        "RssAnon",  // proc(5)
        "fatalError",  // Swift; the page forbids it
        "clientAuth", "serverAuth",  // RFC 5280
    ]

    private static var pages: [SourceTree.File] {
        SourceTree.markdown.filter { !$0.isIn("Sources") }
    }

    @Test func namesInBackticksExist() {
        var problems: [String] = []
        defer { report(problems) }
        let words = Set(
            Code.swift.flatMap { $0.code.lines.joined() } + SourceTree.names(in: "Sources") + SourceTree.names(in: "Tests"))
        let members = Self.members()
        for page in Self.pages {
            let examples = Set(SwiftCode(Self.examples(in: page)).declarations.map(\.name))
            forEachSpan(of: page) { span, line in
                let place = "\(page.path):\(line): `\(span)`"
                let stem = span.split(separator: "/").last.map { $0.prefix { $0 != "." } } ?? ""
                if span.hasSuffix(".swift"), examples.contains(String(stem)) { return }
                if Self.isPath(span) {
                    let path = span.hasSuffix("/") ? String(span.dropLast()) : span
                    if !SourceTree.exists(path) && !SourceTree.exists("\(path).swift") {
                        problems.append("\(place): no such file; name it as it is, or remove it")
                    }
                    return
                }
                if span.hasSuffix(".swift") {
                    if !SourceTree.files.contains(where: { $0.path == span || $0.path.hasSuffix("/\(span)") }) {
                        problems.append("\(place): no such file; name it as it is, or remove it")
                    }
                    return
                }
                guard let names = Self.identifiers(span), !Self.foreign.contains(span) else { return }
                for name in names where !words.contains(name) && !examples.contains(name) {
                    problems.append("\(place): \(name) is not in the code; name it as it is, or remove it")
                }
                for (type, member) in zip(names, names.dropFirst()) {
                    if let declared = members[type], member != "self", !declared.contains(member) {
                        problems.append("\(place): \(type) declares no \(member); name it as it is, or remove it")
                    }
                }
            }
        }
    }

    @Test func linksLeadSomewhere() {
        var problems: [String] = []
        defer { report(problems) }
        for page in Self.pages {
            let folder = page.path.split(separator: "/").dropLast().map { "\($0)/" }.joined()
            forEachProseLine(of: page) { line, number in
                for link in line.components(separatedBy: "](").dropFirst() {
                    guard let target = link.split(separator: ")", omittingEmptySubsequences: false).first, !target.contains("://")
                    else { continue }
                    let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                    let path = parts[0].isEmpty ? page.path : Self.normalized(folder + parts[0])
                    if !SourceTree.exists(path) {
                        problems.append("\(page.path):\(number): the link to \(target) leads to no file; correct it")
                    } else if parts.count == 2, let page = SourceTree.markdown.first(where: { $0.path == path }),
                        !Self.anchors(of: page).contains(parts[1])
                    {
                        problems.append("\(page.path):\(number): \(path) has no heading for #\(parts[1]); correct the link")
                    }
                }
            }
        }
    }

    /// Types with what is declared directly in them and in their extensions.
    private static func members() -> [String: Set<String>] {
        var members: [String: Set<String>] = [:]
        for (_, code) in Code.swift {
            var types: [SwiftCode.Declaration] = []
            for declaration in code.declarations {
                while let type = types.last, type.indentation >= declaration.indentation { types.removeLast() }
                if let type = types.last { members[type.name, default: []].insert(declaration.name) }
                if SwiftCode.typeKeywords.contains(declaration.keyword) {
                    types.append(declaration)
                    members[declaration.name, default: []].formUnion([])
                }
            }
        }
        return members
    }

    /// The Swift code blocks of a page, whose declarations the page may name.
    private static func examples(in page: SourceTree.File) -> String {
        page.text.components(separatedBy: "```swift\n").dropFirst().compactMap { $0.components(separatedBy: "```").first }
            .joined()
    }

    private static func isPath(_ span: String) -> Bool {
        ["Sources/", "Tests/", "docs/", "Cluster/", "Deploy/", ".ci/"].contains { span.hasPrefix($0) }
            && !span.contains { " *<$".contains($0) }
    }

    /// The words of `Type`, `Type.member`, `Type.member(_:)`, `someValue`; nil for other texts.
    private static func identifiers(_ span: String) -> [String]? {
        let path = span.split(separator: "(", maxSplits: 1)[...].first ?? ""
        let names = path.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        let isIdentifier = names.allSatisfy { name in
            name.first.map { $0.isASCII && $0.isLetter } ?? false
                && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber) }
        }
        guard isIdentifier, let first = names.first?.first else { return nil }
        let hump = names[0].dropFirst().contains { $0.isUppercase } && names[0].contains { $0.isLowercase }
        return hump || (first.isUppercase && names.count > 1 && names[0].contains { $0.isLowercase }) ? names : nil
    }

    private static func anchors(of page: SourceTree.File) -> Set<String> {
        var anchors: Set<String> = []
        forEachProseLine(of: page) { line, _ in
            guard line.hasPrefix("#") else { return }
            let title = line.drop { $0 == "#" }.dropFirst().lowercased()
            anchors.insert(String(title.filter { $0.isLetter || $0.isNumber || " -_".contains($0) }.map { $0 == " " ? "-" : $0 }))
        }
        return anchors
    }

    private static func normalized(_ path: String) -> String {
        var components: [Substring] = []
        for component in path.split(separator: "/") where component != "." {
            if component == ".." { _ = components.popLast() } else { components.append(component) }
        }
        return components.joined(separator: "/")
    }

    /// The code spans of a page's prose and tables, with their lines.
    private func forEachSpan(of page: SourceTree.File, _ body: (String, Int) -> Void) {
        forEachProseLine(of: page) { line, number in
            for (index, span) in line.split(separator: "`", omittingEmptySubsequences: false).enumerated() where index % 2 == 1 {
                body(String(span), number)
            }
        }
    }
}

/// Lines outside fenced code blocks, numbered from 1.
private func forEachProseLine(of page: SourceTree.File, _ body: (Substring, Int) -> Void) {
    var isCode = false
    for (index, line) in page.lines.enumerated() {
        if line.drop(while: { $0 == " " }).hasPrefix("```") {
            isCode.toggle()
        } else if !isCode {
            body(line, index + 1)
        }
    }
}
