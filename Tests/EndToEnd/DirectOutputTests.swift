import Foundation
import TestSupport
import Testing

/// Workers that see the output write to it themselves.
@Suite(.serialized) struct DirectOutputTests {
    private static let recipe = "cases/ties/recipe.yml"
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private struct Report: Decodable {
        struct Worker: Decodable { let bytesWritten, bytesDirect: Int }
        let bytesWritten: Int
        let workers: [Worker]
    }

    private func report(_ output: String) throws -> Report {
        try JSONDecoder().decode(
            Report.self, from: Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/\(output)/tessera.report.json")))
    }

    private func expectWhole(_ output: String) async throws {
        let outcome = try await Tessera.run(["verify", "\(directory.path)/\(output)"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
    }

    @Test func bothWaysMakeTheSameBytes() async throws {
        for (mode, isDirect) in [("auto", true), ("direct", true), ("return", false)] {
            let cluster = try await Cluster(workers: 2, worker: ["--blocks", mode])
            let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/\(mode)", ["--wait", "--shard-size", "10kB"])
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
            let report = try report(mode)
            #expect(report.bytesWritten > 0)
            #expect(report.workers.reduce(0) { $0 + $1.bytesDirect } == (isDirect ? report.bytesWritten : 0), "\(mode)")
            let workers = try await cluster.get("/api/v1/workers", as: [Cluster.Worker].self)
            #expect(workers.allSatisfy { $0.bytesDirect == (isDirect ? $0.bytesDone : 0) })
            try await expectWhole(mode)
        }
        #expect(try outputFiles("\(directory.path)/direct") == outputFiles("\(directory.path)/return"))
        #expect(try outputFiles("\(directory.path)/auto") == outputFiles("\(directory.path)/return"))
    }

    /// The coordinator's output root has another name on the workers' hosts.
    @Test func anOutputRootIsFoundUnderItsOtherName() async throws {
        for name in ["here", "there"] {
            try FileManager.default.createDirectory(atPath: "\(directory.path)/\(name)/jobs", withIntermediateDirectories: true)
        }
        let here = "\(directory.path)/here", there = "\(directory.path)/there"
        let cluster = try await Cluster(
            workers: 1, coordinator: ["--output-root", here], worker: ["--blocks", "auto", "--output-root", there])
        // Nothing of the kind is under that root yet, so the blocks are returned.
        var outcome = try await cluster.submit(Self.recipe, "\(here)/jobs/out", ["--wait"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try report("here/jobs/out").workers.map(\.bytesDirect) == [0])
        // Now it is, as if the root were a mount of the same directory. A link below the root would not be followed.
        try FileManager.default.removeItem(atPath: there)
        try FileManager.default.createSymbolicLink(atPath: there, withDestinationPath: here)
        outcome = try await cluster.submit(Self.recipe, "\(here)/jobs/again", ["--wait"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let again = try report("here/jobs/again")
        #expect(again.workers.map(\.bytesDirect) == [again.bytesWritten])
        try await expectWhole("here/jobs/again")
    }

    @Test func aWorkerThatMustWriteAndCannotSaysSo() async throws {
        let elsewhere = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 1, worker: ["--blocks", "direct", "--output-root", elsewhere.path])
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"])
        #expect(outcome.exitCode == 73)
        #expect(outcome.errors.contains("outside the output root \(elsewhere.path)"), "\(outcome.errors)")
        #expect(outcome.errors.contains("--output-root"))
        #expect(directory.names == [])
    }
}
