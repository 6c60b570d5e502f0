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

    /// Accuracy on the test images of all eight domains, if Python with numpy is available to run the merged model.
    ///
    /// The accuracies of the base and the fine-tunes are bundled with the checkpoints (`accuracy.json`).
    static func accuracyTable(digits: String, merged: String) -> [String] {
        guard let known = try? LocalFiles().read("\(digits)/accuracy.json", maxBytes: 1 << 20),
            let published = try? JSONDecoder().decode([String: [String: Double]].self, from: Data(known)),
            let base = published["base"], let after = accuracy(digits: digits, of: merged)
        else {
            return ["(install python3 and numpy to see the accuracy of the merged model here)"]
        }
        var table = TextTable([("ACCURACY ON", .left), ("BASE", .right), ("MERGED", .right), ("OWN FINE-TUNE", .right)])
        func percent(_ value: Double?) -> String { value.map { "\(Quantity.decimal($0 * 100, places: 1)) %" } ?? "–" }
        func mean(_ values: [Double]) -> Double? { values.isEmpty ? nil : values.reduce(0, +) / Double(values.count) }
        let domains = published.keys.filter { $0 != "base" }.sorted()
        for domain in domains {
            table.add([domain, percent(base[domain]), percent(after[domain]), percent(published[domain]?[domain])])
        }
        table.add([
            "mean", percent(mean(domains.compactMap { base[$0] })), percent(mean(domains.compactMap { after[$0] })),
            percent(mean(domains.compactMap { published[$0]?[$0] })),
        ])
        return table.lines
    }

    private static func accuracy(digits: String, of checkpoint: String) -> [String: Double]? {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "\(digits)/evaluate.py", checkpoint, "--json"]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil, let output = try? pipe.fileHandleForReading.readToEnd() else { return nil }
        process.waitUntilExit()
        return process.terminationStatus == 0 ? try? JSONDecoder().decode([String: Double].self, from: output) : nil
    }
}
