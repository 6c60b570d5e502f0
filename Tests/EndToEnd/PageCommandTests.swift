import Foundation
import TestSupport
import Testing

/// The commands that README.md and the pages in docs/ show work as they stand.
///
/// Each `sh` block of a page is run by bash, one after the other, in a directory with the models that the pages name. A `yaml`
/// block that begins with `# NAME.yml` is put there as that file. Coordinators and workers run in the background until the block
/// ends. Where a block cannot run here, the page says why, in a comment `<!-- not run: REASON -->` in front of it.
@Suite(.serialized) struct PageCommandTests {
    struct Block: Sendable {
        let language: String
        let text: String
        /// Why the block cannot run here.
        let reason: String?
    }

    struct Page: Sendable, CustomTestStringConvertible {
        let name: String
        let blocks: [Block]

        var testDescription: String { name }
        var commands: [Block] { blocks.filter { $0.language == "sh" } }
    }

    private static let pages: [Page] = {
        let docs = (try? FileManager.default.contentsOfDirectory(atPath: "\(Repository.root)/docs")) ?? []
        return (["README.md"] + docs.filter { $0.hasSuffix(".md") }.sorted().map { "docs/\($0)" }).compactMap { name in
            guard let text = try? String(contentsOfFile: "\(Repository.root)/\(name)", encoding: .utf8) else { return nil }
            return Page(name: name, blocks: blocks(of: text))
        }
    }()

    private static func blocks(of text: String) -> [Block] {
        var blocks: [Block] = [], reason: String?, open: (language: String, lines: [Substring])?
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if let (language, lines) = open {
                if line == "```" {
                    blocks.append(Block(language: language, text: lines.joined(separator: "\n") + "\n", reason: reason))
                    (open, reason) = (nil, nil)
                } else {
                    open = (language, lines + [line])
                }
            } else if line.hasPrefix("```") {
                open = (String(line.dropFirst(3)), [])
            } else if let match = line.wholeMatch(of: #/<!-- not run: (.+) -->/#) {
                reason = String(match.output.1)
            } else if !line.isEmpty {
                reason = nil
            }
        }
        return blocks
    }

    private static let running = pages.filter { $0.commands.contains { $0.reason == nil } }

    @Test func mostBlocksRun() {
        let commands = Self.pages.flatMap { page in page.commands.map { (page: page.name, block: $0) } }
        let left = commands.compactMap { command in
            command.block.reason.map { "\(command.page): \($0): \(command.block.text.prefix { $0 != "\n" })" }
        }
        #expect(left.count <= 13, "\(left.joined(separator: "\n"))")
        #expect(commands.count - left.count >= 6)
        #expect(Self.running.contains { $0.name == "README.md" })
    }

    @Test(arguments: running)
    func everyBlockRuns(page: Page) async throws {
        let directory = try TemporaryDirectory()
        let models = ["base", "math", "code", "org/chat-v3", "org/law-v1"]
        for (seed, model) in models.enumerated() {
            try FileManager.default.createDirectory(
                atPath: "\(directory.path)/\(model)", withIntermediateDirectories: true)
            try SmallFamily.write(model, seed: UInt64(seed), in: directory)
        }
        try SmallFamily.writeAdapter("adapter", in: directory)
        // What a page calls recipe.yml without showing one.
        try directory.write(
            "merge_method: linear\nmodels: [{model: ./math}, {model: ./code}]\nparameters: {weight: 1}\n", to: "recipe.yml")
        for block in page.blocks where block.language == "yaml" {
            guard let name = block.text.firstMatch(of: #/^# ([a-z-]+\.yml)\n/#)?.output.1 else { continue }
            try directory.write(block.text, to: String(name))
        }
        for (number, block) in page.commands.enumerated() where block.reason == nil {
            try directory.write(Self.script(block.text, port: try freePort(), in: directory.path), to: "block-\(number)")
            let bash = try RunningTessera(["block-\(number)"], in: directory.path, executable: "/bin/bash")
            let code = await bash.exitCode()
            try #require(code == 0, "\(page.name): \(block.text)\(bash.output)\(bash.errors)")
        }
    }

    /// In the text as well, a command that is named exists and has the options that are named with it.
    @Test func namedCommandsExist() async throws {
        var named: [String: Set<String>] = [:]
        for page in Self.pages {
            let text = try String(contentsOfFile: "\(Repository.root)/\(page.name)", encoding: .utf8)
            for span in text.matches(of: #/`tessera ([a-z][a-z-]*)([^`]*)`/#) {
                named[String(span.output.1), default: []].formUnion(
                    span.output.2.matches(of: #/--[a-z0-9-]+/#).map { String($0.output) })
            }
        }
        #expect(named.count >= 12, "\(named.keys.sorted())")
        // ArgumentParser's own.
        named["help"] = nil
        for (command, options) in named {
            let help = try await Tessera.run([command, "--help-hidden"])
            #expect(help.exitCode == 0, "there is no 'tessera \(command)'")
            for option in options { #expect(help.output.contains(option), "'tessera \(command)' has no \(option)") }
        }
    }

    /// The block as a script: with the program under test, this machine's paths and a port of its own in the place of the page's.
    private static func script(_ text: String, port: Int, in directory: String) -> String {
        var lines = [
            "set -euo pipefail", "PATH=\(URL(fileURLWithPath: Tessera.path).deletingLastPathComponent().path):$PATH",
            "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT",
        ]
        let whole = text.replacingOccurrences(of: "\\\n", with: " ")
            .replacingOccurrences(of: "10.0.0.1:7070", with: "127.0.0.1:\(port)")
            .replacingOccurrences(of: " /models", with: " \(directory)")
        for line in whole.split(separator: "\n") {
            let command = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
            if command.hasPrefix("tessera coordinator") {
                lines.append("\(command) --status 127.0.0.1:0 &")
                lines.append("until (exec 3<>/dev/tcp/127.0.0.1/\(port)) 2>/dev/null; do sleep 0.2; done")
            } else {
                lines.append(command.hasPrefix("tessera worker") ? "\(command) &" : String(line))
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A port that nobody listens on.
    private func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in(), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
