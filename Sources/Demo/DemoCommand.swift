package import ArgumentParser
import Checkpoints
import Core
import Engine
import Foundation
import Protocol
import TesseraCLI

package struct DemoCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Merge real checkpoints with a coordinator and three workers, and kill one of them.",
        discussion: """
            Eight fine-tunes of a small vision transformer, which come with Tessera, are merged into one by TIES. Everything runs on this \
            machine, on loopback. The workers pause before each shard so that there is something to watch.
            """)

    @Option(help: ArgumentHelp("Where to put the merged model. The default is a new temporary directory.", valueName: "dir"))
    var output: String?

    @Option(help: ArgumentHelp("How long each worker pauses before a shard.", valueName: "milliseconds"))
    var pace = 150

    package init() {}

    package func run() async throws {
        let (output, pace) = (output, pace)
        try await cancelledBySignals {
            let demo = try Demo(directory: output, pace: pace)
            try await demo.run()
        }
    }
}

/// The demonstration, step by step.
struct Demo: Sendable {
    private let directory: String
    private let digits: String
    private let pace: Int
    private static let tunes = ["rotated", "inverted", "flipped", "upside-down", "noisy", "striped", "rolled", "quantised"]
    private static let workers = ["anna", "boris", "clara"]
    /// The worker that will be killed.
    private static let victim = "boris"

    init(directory: String?, pace: Int) throws {
        digits = try DigitsFamily.locate()
        self.pace = pace
        let path = directory ?? "\(NSTemporaryDirectory())tessera-demo-\(ProcessInfo.processInfo.processIdentifier)"
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw TesseraError(
                .cannotCreate, "cannot create the directory for the demo: \(error.localizedDescription)", file: path)
        }
        self.directory = path
    }

    package func run() async throws {
        let recipePath = "\(directory)/recipe.yml"
        try writeFile(recipePath, Array(recipe.utf8), sync: false)
        let merged = "\(directory)/merged", reference = "\(directory)/merged-by-run"

        print(Terminal.styled("Tessera demo", .bold) + ": eight fine-tuned digit classifiers into one, by TIES")
        print("")
        let cluster = try await DemoCluster.start(workers: Self.workers, pace: pace, logs: directory)
        defer { cluster.stop() }
        print("A coordinator listens on \(cluster.jobs), its status is on http://\(cluster.status)/api/v1/jobs")
        print("Workers \(Self.workers.joined(separator: ", ")) have joined. Halfway through, \(Self.victim) gets kill -9.")
        print("")
        let job = try await watch(cluster, recipe: recipePath, output: merged)
        print("")
        print(
            "The cluster merged \(Quantity.bytes(job.bytesOutput)) in \(job.shards.total) shards and \(job.attempts) attempts, in \(Quantity.seconds(job.seconds)) at demo pace."
        )

        let verification = try Verification(directory: merged).run(threads: availableProcessors())
        try check(verification.findings.isEmpty, "the merged checkpoint is not what was written")
        print(
            "\(Terminal.styled("✓", .green)) verified: \(verification.tensors) tensors in \(verification.files) files have the digests of the manifest"
        )

        let local = LocalRun(threads: availableProcessors(), memory: 1 << 30, log: quietLog)
        let status = try await local.run(
            Submit(
                recipe: recipe, recipeName: recipePath, workingDirectory: directory, output: reference,
                options: JobOptions(overwrite: true))
        ) { _, _ in }
        if let error = status.error { throw error }
        try check(try Self.sameFiles(merged, reference), "tessera run made other bytes than the cluster")
        print(
            "\(Terminal.styled("✓", .green)) tessera run, in one process and at full speed, took \(Quantity.seconds(status.seconds)) and made the same bytes"
        )
        print("")
        for line in DigitsFamily.accuracyTable(digits: digits, merged: merged) { print(line) }
        print(
            """

            Try next:
              tessera plan \(recipePath)
              tessera inspect \(merged)
              tessera verify \(merged)
              tessera run RECIPE OUT        with a recipe of your own; every mergekit config is one
            """)
    }

    private var recipe: String {
        let models = Self.tunes.map { "- model: \(digits)/\($0)\n  parameters: {weight: 0.15, density: 0.5}" }
        return
            "merge_method: ties\nbase_model: \(digits)/base\nmodels:\n\(models.joined(separator: "\n"))\nparameters: {normalize: false}\ndtype: float32\n"
    }

    /// Submits the job, shows its shards, and kills the victim on the way.
    private func watch(_ cluster: DemoCluster, recipe path: String, output: String) async throws -> JobStatus {
        let submission = Submit(
            recipe: recipe, recipeName: path, workingDirectory: directory, output: output,
            options: JobOptions(overwrite: true, shardBytes: 40_000))
        return try await CoordinatorClient.connect(to: cluster.jobs) { client in
            guard case .submitted(let submitted) = try await client.ask(.submit(submission)) else {
                throw TesseraError(.protocolMismatch, "the coordinator did not take the job")
            }
            var view = ShardMosaic(workers: Self.workers)
            var isKilled = false
            while true {
                guard let job = try await client.status(of: submitted.job).jobs.first else {
                    throw TesseraError(.protocolMismatch, "the coordinator did not answer with the job")
                }
                let holdsLease = job.shardDetails?.contains { $0.state == .leased && $0.workers.contains(Self.victim) } ?? false
                if !isKilled, holdsLease, 2 * job.shards.committed >= job.shards.total {
                    cluster.kill(Self.victim)
                    isKilled = true
                    view.note("\(Self.victim) was killed with a shard in hand; the others take it over")
                }
                view.show(job)
                if job.state == .done { return job }
                if job.state.isEnd { throw job.error ?? TesseraError(.internal, "the job ended as \(job.state.rawValue)") }
                try await Task.sleep(for: .milliseconds(40))
            }
        }
    }

    private func check(_ condition: Bool, _ problem: String) throws(TesseraError) {
        guard condition else { throw TesseraError(.difference, problem, advice: "please report this: it is a bug") }
    }

    /// Whether two outputs hold the same files with the same bytes, but for the reports of their runs.
    private static func sameFiles(_ first: String, _ second: String) throws -> Bool {
        let names = try listDirectory(first).filter { $0 != "tessera.report.json" }
        guard try listDirectory(second).filter({ $0 != "tessera.report.json" }) == names else { return false }
        return try names.allSatisfy { name in
            try readFile("\(first)/\(name)", maxBytes: 1 << 30) == readFile("\(second)/\(name)", maxBytes: 1 << 30)
        }
    }
}
