import Testing

/// The house: data flows one way, and so do imports (docs/architecture.md).
@Suite struct ImportTests {
    /// A module may import what stands before it, never what stands after.
    private static let order = [
        "CTensorKernels", "CLibCrypto", "CLZ4", "CLinux", "CLoadingRules", "CStatusPage", "Core", "TensorKernels",
        "LinearAlgebra",
        "Checkpoints", "Operators",
        "TaskVectors", "Work", "Protocol", "Transport", "Worker", "Recipes", "Tokenizers", "Planning", "Journal", "Coordinator",
        "Engine", "TesseraCLI", "Demo", "tessera",
    ]

    /// Pairs that the order alone would allow, but that meet elsewhere.
    private static let strangers = [("Coordinator", "Worker")]

    @Test func everyFolderOfSourcesIsAModuleOfTheHouse() {
        #expect(SourceTree.names(in: "Sources") == Self.order.sorted())
    }

    /// The first table of docs/architecture.md whose first column names a module lists all modules, in the order of `order`.
    @Test
    func theTableOfModulesIsTheFolderListing() throws {
        let page = try #require(SourceTree.markdown.first { $0.path == "docs/architecture.md" })
        let rows = page.lines.split { !$0.hasPrefix("|") }
        let cells = rows.map { table in
            table.dropFirst(2).flatMap { row in
                row.split(separator: "|").first.map {
                    $0.split(separator: "`").map(String.init).filter { $0.first?.isLetter ?? false }
                } ?? []
            }
        }
        let table = try #require(
            cells.first { $0.contains { Self.order.contains($0) } }, "docs/architecture.md has no table of modules")
        #expect(table == Self.order, "list the folders of Sources in the order of ImportTests")
    }

    @Test(arguments: order)
    func importsRunOneWay(module: String) throws {
        let own = try #require(Self.order.firstIndex(of: module))
        for (file, imported) in imports(of: module) {
            guard let position = Self.order.firstIndex(of: imported) else { continue }
            #expect(position < own, "\(file) imports \(imported), which stands below \(module)")
            #expect(
                !Self.strangers.contains { $0 == (module, imported) },
                "\(file) imports \(imported), which \(module) is not to know")
        }
    }

    /// A worker is given its work: it neither reads recipes nor plans.
    @Test(arguments: ["Protocol", "Worker"])
    func workersNeedNoPlanner(module: String) {
        var closure: Set = [module], waiting = [module]
        while let next = waiting.popLast() {
            for (_, imported) in imports(of: next) where closure.insert(imported).inserted { waiting.append(imported) }
        }
        for planner in ["Yams", "Recipes", "Tokenizers", "Planning"] {
            #expect(!closure.contains(planner), "\(module) depends on \(planner); find the import that leads there and remove it")
        }
    }

    @Test func operatorsOpenNoFile() {
        for (file, imported) in imports(of: "Operators") {
            #expect(
                !["Foundation", "FoundationEssentials", "NIOCore", "NIOPosix"].contains(imported), "\(file) imports \(imported)")
        }
    }

    @Test func stateMachinesKnowNoSocketAndNoClock() {
        for module in ["Protocol"] {
            for (file, imported) in imports(of: module) {
                #expect(!["NIOPosix", "Dispatch", "Glibc"].contains(imported), "\(file) imports \(imported)")
            }
        }
        let values = [
            "/Scheduling/", "/ClusterState", "/JobRecord", "/JobProgress", "/JobRegistry", "/WorkerRegistry", "/StatusPages",
        ]
        let scheduler = swiftFiles(of: "Coordinator").filter { file in values.contains { file.path.contains($0) } }
        #expect(!scheduler.isEmpty)
        for file in scheduler {
            #expect(!file.text.contains("ContinuousClock") && !file.text.contains("Task"), "\(file.path) knows a clock or a task")
        }
    }

    private func imports(of module: String) -> [(file: String, imported: String)] {
        swiftFiles(of: module).flatMap { file in
            file.lines.compactMap { line -> (String, String)? in
                let words = line.split(separator: " ").filter {
                    !["package", "internal", "private", "public"].contains($0) && !$0.hasPrefix("@")
                }
                guard words.count >= 2, words[0] == "import" else { return nil }
                return (file.path, String(words[words.count - 1]))
            }
        }
    }

    private func swiftFiles(of module: String) -> [SourceTree.File] {
        SourceTree.sources.filter { $0.isIn("Sources/\(module)") }
    }
}
