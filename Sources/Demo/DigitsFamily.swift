import Core
import Foundation
import TesseraCLI

/// The checkpoints bundled with Tessera: a small vision transformer trained on digits, and eight fine-tunes of it.
enum DigitsFamily {
    /// Finds the checkpoints beside the executable, where the build puts resources, or in the working tree.
    static func locate() throws(TesseraError) -> String {
        let executable = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = URL(fileURLWithPath: executable).deletingLastPathComponent().path
        let candidates = [
            "\(beside)/tessera_Demo.resources/digits", "\(currentDirectory())/Sources/Demo/Resources/digits",
        ]
        for candidate in candidates where try LocalFiles().isDirectory("\(candidate)/base") { return candidate }
        throw TesseraError(
            .inputMissing, "the demo's checkpoints are neither beside the executable nor in the working directory",
            file: candidates[0],
            advice: "run the demo from a clone of the repository: swift run -c release tessera demo")
    }

    /// The fine-tunes, each of which is for images that are changed in the way that gives it its name: a domain.
    static let tunes = ["rotated", "inverted", "flipped", "upside-down", "noisy", "striped", "rolled", "quantised"]

    /// The share of test images that a model reads, by domain. For the base and the fine-tunes these figures come with the
    /// checkpoints (`accuracy.json`).
    ///
    /// - Returns: by model, and then by domain; empty where the file cannot be read.
    static func published(digits: String) -> [String: [String: Double]] {
        guard let known = try? LocalFiles().read("\(digits)/accuracy.json", maxBytes: 1 << 20) else { return [:] }
        return (try? JSONDecoder().decode([String: [String: Double]].self, from: Data(known))) ?? [:]
    }

    /// Measures a model on the test images, if Python with numpy is available to run it.
    ///
    /// - Returns: by domain; `nil` where it cannot be run.
    static func accuracy(digits: String, of checkpoint: String, on domains: [String]) -> [String: Double]? {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "python3", "\(digits)/evaluate.py", checkpoint, "--domains", domains.joined(separator: ","), "--json",
        ]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil, let output = try? pipe.fileHandleForReading.readToEnd() else { return nil }
        process.waitUntilExit()
        return process.terminationStatus == 0 ? try? JSONDecoder().decode([String: Double].self, from: output) : nil
    }

    /// Rows of shares with a last row of their means, as percentages.
    static func table(
        _ columns: [String], rows: [(name: String, shares: [Double?])]
    ) -> [String] {
        var table = TextTable([("IMAGES", .left)] + columns.map { ($0, .right) })
        func percent(_ value: Double?) -> String { value.map { "\(Quantity.decimal($0 * 100, places: 1)) %" } ?? "–" }
        for row in rows { table.add([row.name] + row.shares.map(percent)) }
        let means = columns.indices.map { column -> Double? in
            let values = rows.compactMap { $0.shares[column] }
            return values.count == rows.count && !values.isEmpty ? values.reduce(0, +) / Double(values.count) : nil
        }
        table.add(["mean"] + means.map(percent))
        return table.lines
    }
}
