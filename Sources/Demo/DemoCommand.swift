package import ArgumentParser
import Checkpoints
import Core
import Engine
import Foundation
import Protocol
import TesseraCLI

package struct DemoCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Merge real checkpoints with a coordinator and three workers, one of which is killed.",
        discussion: """
            The demo merges three fine-tunes of a small vision transformer, which are part of Tessera, into one that reads \
            each kind of their images better than the base, and keeps eight of them in two bits per parameter. Everything runs \
            on this machine. The workers pause before each shard so that there is something to watch.
            """)

    @Option(help: ArgumentHelp("The directory for the merged model. The default is a new temporary directory.", valueName: "dir"))
    var output: String?

    @Option(help: ArgumentHelp("Pause of each worker before a shard.", valueName: "milliseconds"))
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

/// The steps of the demo.
struct Demo: Sendable {
    private let directory: String
    private let digits: String
    private let pace: Int
    /// The fine-tunes for images that are damaged and otherwise as the base knows them. Their changes go together; those for
    /// images that are turned or mirrored contradict each other.
    private static let tunes = ["noisy", "striped", "quantised"]
    private static let workers = ["anna", "boris", "clara"]
    /// The worker that will be killed.
    private static let victim = "boris"

    init(directory: String?, pace: Int) throws {
        digits = try DigitsFamily.locate()
        self.pace = pace
        let path =
            directory.map { FilePath.absolute($0, in: FileManager.default.currentDirectoryPath) }
            ?? "\(NSTemporaryDirectory())tessera-demo-\(ProcessInfo.processInfo.processIdentifier)"
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
        try writeFile(recipePath, Array(recipe.utf8))
        let merged = "\(directory)/merged", reference = "\(directory)/merged-by-run"

        print(
            Terminal.styled("Tessera demo", .bold)
                + ": merging three fine-tuned digit classifiers (\(Self.tunes.joined(separator: ", "))) into one")
        print("")
        let cluster = try await DemoCluster.start(workers: Self.workers, pace: pace, logs: directory)
        defer { cluster.stop() }
        print("The coordinator listens on \(cluster.jobs); its status is at http://\(cluster.status)/api/v1/jobs.")
        print(
            "Workers \(Self.workers.joined(separator: ", ")) have joined. Halfway through, \(Self.victim) is killed with kill -9."
        )
        print("")
        let job = try await watch(cluster, recipe: recipePath, output: merged)
        print("")
        print(
            "The cluster merged \(Quantity.bytes(job.bytesOutput)) in \(job.shards.total) shards and \(job.attempts) attempts, "
                + "in \(Quantity.seconds(job.seconds)) at demo pace.")

        let verification = try Verification(directory: merged, in: LocalFiles()).run(threads: availableProcessors())
        try check(verification.findings.isEmpty, "the merged checkpoint differs from its manifest")
        print(
            "\(Terminal.styled("✓", .green)) verified: \(verification.tensors) tensors in \(verification.files) files "
                + "match the manifest")

        let seconds = try await Self.run(recipe, at: recipePath, in: directory, output: reference)
        try check(try Self.sameFiles(merged, reference), "the outputs of tessera run and of the cluster differ")
        print(
            "\(Terminal.styled("✓", .green)) tessera run, in one process at full speed, made the same bytes in "
                + Quantity.seconds(seconds))
        print("")
        showAccuracy(of: merged)
        print("")
        let store = "\(directory)/store"
        try await DemoStore(digits: digits, directory: directory, store: store).run()
        print(
            """

            Try next:
              tessera plan \(recipePath)
              tessera stats \(digits)/base \(digits)/noisy \(digits)/striped \(merged)
              tessera inspect \(store)
              tessera verify \(merged)
              tessera run RECIPE OUT        with your own recipe, such as any mergekit configuration
            """)
    }

    /// Runs a recipe on this machine.
    ///
    /// - Returns: the seconds that it took.
    static func run(_ recipe: String, at path: String, in directory: String, output: String) async throws -> Double {
        let local = LocalRun(threads: availableProcessors(), memory: 1 << 30, log: quietLog)
        let (status, _) = try await local.run(
            Submit(
                recipe: recipe, recipeName: path, workingDirectory: directory, output: output,
                options: JobOptions(overwrite: true))
        ) { _, _ in }
        if let error = status.error { throw error }
        return status.seconds
    }

    private func showAccuracy(of merged: String) {
        let known = DigitsFamily.published(digits: digits)
        guard let found = DigitsFamily.accuracy(digits: digits, of: merged, on: Self.tunes) else {
            return print("(install python3 and numpy to see here how many test images the merged model reads)")
        }
        print("Test images read correctly:")
        let rows = Self.tunes.map { ($0, [known["base"]?[$0], found[$0], known[$0]?[$0]]) }
        for line in DigitsFamily.table(["BASE", "MERGED", "OWN FINE-TUNE"], rows: rows) { print(line) }
    }

    private var recipe: String {
        let models = Self.tunes.map { "- model: \(digits)/\($0)" }
        return """
            merge_method: task_arithmetic
            base_model: \(digits)/base
            models:
            \(models.joined(separator: "\n"))
            parameters: {weight: 1, lambda: 0.5}
            dtype: float32

            """
    }

    /// Submits the job, shows its shards, and kills the victim halfway.
    private func watch(_ cluster: DemoCluster, recipe path: String, output: String) async throws -> JobStatus {
        let submission = Submit(
            recipe: recipe, recipeName: path, workingDirectory: directory, output: output,
            options: JobOptions(overwrite: true, shardBytes: 40_000))
        return try await CoordinatorClient.connect(to: CoordinatorAddress(cluster.jobs)) { client in
            guard case .submitted(let submitted) = try await client.ask(.submit(submission)) else {
                throw TesseraError(.protocolMismatch, "the coordinator did not accept the job")
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
                    view.note("\(Self.victim) was killed during a shard; another worker takes the shard over")
                }
                try view.show(job)
                if job.state == .done { return job }
                if job.state.isEnd { throw job.error ?? TesseraError(.internal, "the job ended as \(job.state.rawValue)") }
                try await Task.sleep(for: .milliseconds(40))
            }
        }
    }

    private func check(_ condition: Bool, _ problem: String) throws(TesseraError) {
        guard condition else { throw TesseraError(.difference, problem, advice: "this is a bug; please report it") }
    }

    /// Whether two outputs have the same files with the same bytes, apart from their run reports.
    private static func sameFiles(_ first: String, _ second: String) throws -> Bool {
        let files = LocalFiles()
        let names = try files.list(first).filter { $0 != "tessera.report.json" }
        guard try files.list(second).filter({ $0 != "tessera.report.json" }) == names else { return false }
        return try names.allSatisfy { name in
            try files.read("\(first)/\(name)", maxBytes: 1 << 30) == files.read("\(second)/\(name)", maxBytes: 1 << 30)
        }
    }
}
