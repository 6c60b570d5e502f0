import Foundation
import TestSupport
import Testing

/// The house: data flows one way, and so do imports (docs/architecture.md).
@Suite struct ImportTests {
    /// A module may import what stands before it, never what stands after.
    private static let order = [
        "CTensorKernels", "CLibCrypto", "CLZ4", "CLinux", "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors",
        "Work",
        "Protocol", "Transport", "Worker", "Recipes", "Tokenizers", "Planning", "Coordinator", "Engine", "TesseraCLI", "Demo",
        "tessera",
    ]

    /// Pairs that the order alone would allow, but that meet elsewhere.
    private static let strangers = [("Coordinator", "Worker")]

    @Test func everyFolderOfSourcesIsAModuleOfTheHouse() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: "\(Repository.root)/Sources").sorted()
        #expect(folders == Self.order.sorted())
    }

    @Test(arguments: order)
    func importsRunOneWay(module: String) throws {
        let own = try #require(Self.order.firstIndex(of: module))
        for (file, imported) in try imports(of: module) {
            guard let position = Self.order.firstIndex(of: imported) else { continue }
            #expect(position < own, "\(file) imports \(imported), which stands below \(module)")
            #expect(
                !Self.strangers.contains { $0 == (module, imported) },
                "\(file) imports \(imported), which \(module) is not to know")
        }
    }

    @Test func operatorsOpenNoFile() throws {
        for (file, imported) in try imports(of: "Operators") {
            #expect(
                !["Foundation", "FoundationEssentials", "NIOCore", "NIOPosix"].contains(imported), "\(file) imports \(imported)")
        }
    }

    @Test func stateMachinesKnowNoSocketAndNoClock() throws {
        for module in ["Protocol"] {
            for (file, imported) in try imports(of: module) {
                #expect(!["NIOPosix", "Dispatch", "Glibc"].contains(imported), "\(file) imports \(imported)")
            }
        }
        let values = [
            "/Scheduling/", "/ClusterState", "/JobRecord", "/JobProgress", "/JobRegistry", "/WorkerRegistry", "/StatusPages",
        ]
        let scheduler = try swiftFiles(of: "Coordinator").filter { path in values.contains { path.contains($0) } }
        #expect(!scheduler.isEmpty)
        for path in scheduler {
            let text = try String(contentsOfFile: path, encoding: .utf8)
            #expect(!text.contains("ContinuousClock") && !text.contains("Task"), "\(path) knows a clock or a task")
        }
    }

    private func imports(of module: String) throws -> [(file: String, imported: String)] {
        try swiftFiles(of: module).flatMap { path in
            try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").compactMap { line -> (String, String)? in
                let words = line.split(separator: " ").filter {
                    !["package", "internal", "private", "public"].contains($0) && !$0.hasPrefix("@")
                }
                guard words.count >= 2, words[0] == "import" else { return nil }
                return (path, String(words[words.count - 1]))
            }
        }
    }

    private func swiftFiles(of module: String) throws -> [String] {
        let folder = "\(Repository.root)/Sources/\(module)"
        return (FileManager.default.enumerator(atPath: folder)?.allObjects ?? []).compactMap { $0 as? String }
            .filter { $0.hasSuffix(".swift") }.map { "\(folder)/\($0)" }
    }
}
