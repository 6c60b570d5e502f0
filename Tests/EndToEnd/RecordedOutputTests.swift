import Core
import Foundation
import TestSupport
import Testing

/// Every file of many outputs is, byte for byte, what it was when `RecordedOutputs.json` was written.
///
/// To record again: `TESSERA_RECORD=1 swift test --filter RecordedOutput`. That is right for new cases, for a commit that raises
/// `numericsVersion`, and for one that changes an output on purpose and says so. It is never the way to make a refactoring pass.
@Suite struct RecordedOutputTests {
    private static let path = "\(Repository.root)/Tests/EndToEnd/RecordedOutputs.json"
    private static let isRecording = ProcessInfo.processInfo.environment["TESSERA_RECORD"] == "1"

    /// Digests of outputs by the keys of their cases.
    private static let record: [String: String] = {
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path)) else { return [:] }
        return (try? JSONDecoder().decode([String: String].self, from: data)) ?? [:]
    }()

    // One after the other: each case is several processes, most of which use all processors.
    @Test(.serialized, .disabled(if: isRecording), arguments: RecordedCase.merges)
    func merge(_ recorded: RecordedCase) async throws { try await expectRecorded(recorded) }

    @Test(.serialized, .disabled(if: isRecording), arguments: RecordedCase.stores)
    func store(_ recorded: RecordedCase) async throws { try await expectRecorded(recorded) }

    @Test(.disabled(if: isRecording))
    func theRecordHasTheseCases() {
        let keys = (RecordedCase.merges + RecordedCase.stores).flatMap(\.keys)
        #expect(Set(keys).count == keys.count)
        #expect(Self.record.keys.sorted() == keys.sorted())
    }

    @Test(.enabled(if: isRecording))
    func writeRecord() async throws {
        var record: [String: String] = [:]
        for recorded in RecordedCase.merges + RecordedCase.stores {
            // All recipes that fail are named.
            do {
                for (key, listing) in try await listings(of: recorded) { record[key] = try digest(listing) }
            } catch {
                Issue.record(error, "\(recorded.name)")
            }
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try (encoder.encode(record) + Data("\n".utf8)).write(to: URL(fileURLWithPath: Self.path))
    }

    private func expectRecorded(_ recorded: RecordedCase) async throws {
        for (key, listing) in try await listings(of: recorded) {
            let found = try digest(listing)
            #expect(
                found == Self.record[key],
                """
                the output '\(key)' is not the recorded one. It now has these files (name, size, SHA-256; of the manifest \
                without 'plan' and 'tessera'):
                \(listing)If that is on purpose (a raised numericsVersion, an intended change of the output, a new case), record \
                it again with TESSERA_RECORD=1 swift test --filter RecordedOutput, and say in the commit why.
                """)
        }
    }

    // MARK: Outputs

    /// Runs the recipes of a case.
    ///
    /// - Returns: key and listing of each output.
    private func listings(of recorded: RecordedCase) async throws -> [(key: String, listing: String)] {
        let bench = try StoreBench(), inputs = RecordedInputs(directory: bench.path)
        try inputs.link()
        try recorded.inputs(inputs)
        var listings: [(key: String, listing: String)] = []
        for run in recorded.runs {
            // Paths in recipes are relative, so that outputs do not depend on where the working directory lies.
            try bench.directory.write(run.recipe, to: "\(run.output).yml")
            let outcome = try await Tessera.run(["run", "\(run.output).yml", run.output] + run.arguments, in: bench.path)
            try #require(outcome.exitCode == 0, "\(recorded.key(run)): \(outcome.errors)")
            listings.append((recorded.key(run), try listing("\(bench.path)/\(run.output)")))
        }
        return listings
    }

    private func digest(_ text: String) throws -> String { try Digest.sha256(of: Array(text.utf8)).hex }

    /// Name, size and SHA-256 of each file that has to be the same on every run.
    private func listing(_ directory: String) throws -> String {
        try outputFiles(directory).sorted { $0.key < $1.key }.map { name, data in
            let bytes = recordedPart(of: data, name: name)
            return "\(name) \(bytes.count) \(try Digest.sha256(of: bytes).hex)\n"
        }.joined()
    }

    /// The file without what may change: the plan's digest and Tessera's version in the manifest, and so the digest of the
    /// manifest.
    private func recordedPart(of data: Data, name: String) -> [UInt8] {
        let isLeftOut: (Substring) -> Bool
        switch name {
        case "tessera.manifest.json":
            isLeftOut = {
                $0.hasPrefix("  \"plan\" : ") || $0.hasPrefix("  \"tessera\" : ") || $0.hasPrefix("          \"sample\" : ")
            }
        case "SHA256SUMS": isLeftOut = { $0.hasSuffix("  tessera.manifest.json") }
        default: return Array(data)
        }
        let lines = String(decoding: data, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        return Array(lines.filter { !isLeftOut($0) }.joined(separator: "\n").utf8)
    }
}
