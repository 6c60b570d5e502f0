import Core
import Foundation
import Journal
import Protocol
import TestSupport
import Testing

/// Processes are killed, and the same command goes on where they were.
@Suite(.serialized) struct RestartTests {
    private let directory: TemporaryDirectory
    private var state: String { "\(directory.path)/state" }
    private var output: String { "\(directory.path)/out" }
    private static let recipe = "cases/ties/recipe.yml"
    /// A shard of every few tensors, each of which takes a tenth of a second.
    private static let slow = ["--pause-milliseconds", "100"]
    /// So slow that a busy machine sees each change of stages.
    private static let slower = ["--pause-milliseconds", "1000"]
    private static let shards = ["--shard-size", "10kB"]

    init() throws { directory = try TemporaryDirectory() }

    /// The shards that a journal holds as committed, of the job that has not ended.
    private func committed(_ path: String) throws -> Set<Int> {
        let contents = try SQLiteJournal(directory: path, build: "test", now: 0).load()
        return Set(contents.jobs.flatMap(\.shards).map(\.attempt.shard))
    }

    private func reference(_ recipe: String = recipe) async throws -> [String: Data] {
        let path = "\(directory.path)/reference"
        let outcome = try await Tessera.run(["run", recipe, path] + Self.shards)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        return try outputFiles(path)
    }

    // MARK: The coordinator

    /// Killed again and again, each time when so many more shards are committed, while two workers go on.
    @Test(arguments: [0, 1, 3])
    func aCoordinatorThatIsKilledGoesOn(after step: Int) async throws {
        let reference = try await reference()
        let first = try await Cluster(workers: 2, coordinator: ["--state", state], worker: Self.slow)
        let outcome = try await first.submit(Self.recipe, output, Self.shards)
        let id = outcome.output.trimmingCharacters(in: .whitespacesAndNewlines)
        var cluster = first, kept: Set<Int> = []
        for round in 0..<3 {
            let before = kept.count
            var seen = 0
            try await eventually("\(before + step) shards") {
                let job = try await cluster.job(id)
                seen = job.shards.committed
                return seen >= before + step || job.state != "running"
            }
            cluster.coordinator.signal(SIGKILL)
            #expect(await cluster.coordinator.exitCode() == 128 + SIGKILL)
            let now = try committed(state)
            #expect(now.isSuperset(of: kept) || now.isEmpty, "round \(round): what was kept stays")
            #expect(now.count >= seen || now.isEmpty, "what was said to be committed is kept")
            kept = now
            cluster = try await Cluster(coordinator: ["--listen", first.jobs, "--state", state])
        }
        try await eventually("the end") { try await cluster.job(id).state == "done" }
        #expect(try outputFiles(output) == reference)
        let job = try await cluster.job(id)
        #expect(job.shards.committed == job.shards.total)
        for (number, shard) in (job.shardDetails ?? []).enumerated() where kept.contains(number) {
            #expect(shard.attempts == 1, "\(shard.label) was done again although the journal had it")
        }
        #expect(directory.names == ["out", "reference", "state"])
        // The job is still known to the next one.
        cluster.coordinator.signal(SIGKILL)
        _ = await cluster.coordinator.exitCode()
        let last = try await Cluster(coordinator: ["--state", state])
        #expect(try await last.job(id).state == "done")
    }

    // MARK: Between the stages of a method that measures whole models

    /// Each with the stages that come before the last.
    private static let modelWide = [("seed-cases/ties-model-wide/recipe.yml", 3), ("seed-cases/doge/recipe.yml", 2)]

    /// Calls `kill` each time when a stage is done and the next one has begun, with the shards of all stages so far.
    private func eachStage(_ job: () async throws -> Cluster.Job, _ stages: Int, kill: (Int) async throws -> Void) async throws {
        var planned = try await job().shards.total
        for _ in 0..<stages {
            try await eventually("the stage after \(planned) shards") {
                let now = try await job()
                return now.shards.total > planned || now.state != "running"
            }
            try await kill(planned)
            planned = try await job().shards.total
        }
    }

    /// The coordinator is killed at each change of stages: what was measured is measured once.
    @Test(arguments: modelWide)
    func aCoordinatorThatIsKilledBetweenStagesGoesOn(recipe: String, stages: Int) async throws {
        let reference = try await reference(recipe)
        var cluster = try await Cluster(workers: 2, coordinator: ["--state", state], worker: Self.slower)
        // The workers go on with the coordinators that follow.
        let first = cluster
        let id = try await cluster.submit(recipe, output, Self.shards).output.trimmingCharacters(in: .whitespacesAndNewlines)
        var kept: Set<Int> = []
        try await eachStage({ try await cluster.job(id) }, stages) { done in
            cluster.coordinator.signal(SIGKILL)
            #expect(await cluster.coordinator.exitCode() == 128 + SIGKILL)
            let found = try committed(state)
            kept.formUnion(found)
            // A busy machine may look when the job has ended.
            #expect(found.isEmpty || kept.isSuperset(of: 0..<done), "the stages so far are kept")
            cluster = try await Cluster(coordinator: ["--listen", first.jobs, "--state", state])
        }
        try await eventually("the end") { try await cluster.job(id).state == "done" }
        let job = try await cluster.job(id)
        #expect(try outputFiles(output) == reference)
        for (number, shard) in (job.shardDetails ?? []).enumerated() where kept.contains(number) {
            #expect(shard.attempts == 1, "\(shard.label) was done again although the journal had it")
        }
        #expect(job.shards.total > kept.count && (job.shardDetails?.count ?? job.shards.total) == job.shards.total)
    }

    /// The only worker is killed at each change of stages: no more is lost than the shard in its hands.
    @Test(arguments: modelWide)
    func aWorkerThatIsKilledBetweenStagesIsReplaced(recipe: String, stages: Int) async throws {
        let reference = try await reference(recipe)
        let cluster = try await Cluster(workers: 1, worker: Self.slower)
        let id = try await cluster.submit(recipe, output, Self.shards).output.trimmingCharacters(in: .whitespacesAndNewlines)
        // The attempts that each shard has taken when it was first seen committed.
        var kept: [Int: Int] = [:]
        func look() async throws {
            for (number, shard) in (try await cluster.job(id).shardDetails ?? []).enumerated() where shard.state == "committed" {
                #expect(kept[number] ?? shard.attempts == shard.attempts, "\(shard.label) was done again")
                kept[number] = shard.attempts
            }
        }
        try await eachStage({ try await cluster.job(id) }, stages) { done in
            cluster.workers.last?.signal(SIGKILL)
            _ = await cluster.workers.last?.exitCode()
            try await look()
            #expect((0..<done).allSatisfy { kept[$0] != nil })
            try cluster.addWorker(Self.slow)
        }
        try await eventually("the end") { try await cluster.job(id).state == "done" }
        try await look()
        let job = try await cluster.job(id)
        #expect(try outputFiles(output) == reference)
        #expect(kept.count == job.shards.total && job.attempts <= job.shards.total + stages, "a shard for each worker that died")
    }

    /// `tessera run` goes on within the stages, too.
    @Test func aRunThatIsKilledBetweenStagesGoesOn() async throws {
        let reference = try await reference(Self.modelWide[0].0), arguments = [Self.modelWide[0].0, output] + Self.shards
        // A journal that ends in the second stage is what a run that was killed there leaves.
        var kept: Set<Int> = []
        for milliseconds in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            let run = try RunningTessera(["run"] + arguments + ["--threads", "1"])
            try await eventually("a journal or an output") { directory.names.contains { $0.hasPrefix("out") } }
            try await Task.sleep(for: .milliseconds(milliseconds))
            run.signal(SIGKILL)
            guard await run.exitCode() == 128 + SIGKILL else { break }
            kept.formUnion(try committed("\(output).partial-state"))
        }
        if !FileManager.default.fileExists(atPath: output) {
            let outcome = try await Tessera.run(["run"] + arguments)
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        #expect(try outputFiles(output) == reference)
        struct Report: Decodable { let shards, attempts: Int }
        let report = try JSONDecoder().decode(
            Report.self, from: Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.report.json")))
        #expect(report.attempts == report.shards, "what was committed is not done again")
        #expect(directory.names == ["out", "reference"])
    }

    @Test func twoCoordinatorsNeverShareAState() async throws {
        let cluster = try await Cluster(coordinator: ["--state", state])
        let second = try await Tessera.run(
            ["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--state", state])
        #expect(second.exitCode == 75)
        #expect(second.errors.contains("\(state): the state directory is in use by process "), "\(second.errors)")
        #expect(cluster.coordinator.isRunning)
    }

    /// With a state, an interrupted coordinator ends at once and loses nothing.
    @Test func anInterruptedCoordinatorKeepsItsJobs() async throws {
        let first = try await Cluster(coordinator: ["--state", state])
        let id = try await first.submit(Self.recipe, output, Self.shards).output.trimmingCharacters(in: .whitespacesAndNewlines)
        first.coordinator.signal(SIGINT)
        #expect(await first.coordinator.exitCode() == 130)
        #expect(
            first.coordinator.errors.contains("unfinished jobs are kept for the next start  jobs=1"),
            "\(first.coordinator.errors)")
        #expect(directory.names == ["out.partial-\(id)", "state"])
        let second = try await Cluster(workers: 1, coordinator: ["--state", state])
        try await eventually("the end") { try await second.job(id).state == "done" }
    }

    @Test func whoWaitsOutlivesTheCoordinator() async throws {
        let first = try await Cluster(workers: 1, coordinator: ["--state", state], worker: Cluster.stuck)
        let submit = try RunningTessera(
            ["submit", Self.recipe, output, "--wait", "--coordinator", first.jobs] + Self.shards)
        try await eventually("work") {
            try await first.get("/api/v1/jobs", as: [Cluster.Job].self).contains { $0.shards.committed > 0 }
        }
        first.coordinator.signal(SIGKILL)
        _ = await first.coordinator.exitCode()
        try await eventually("a remark") { submit.errors.contains("lost the coordinator") }
        let second = try await Cluster(workers: 1, coordinator: ["--listen", first.jobs, "--state", state])
        #expect(await submit.exitCode() == 0, "\(submit.errors)")
        #expect(submit.output.contains("by ties in"))
        // Who asks again gets the same job.
        let again = try await second.submit(Self.recipe, output, Self.shards)
        #expect(again.exitCode == 0 && again.errors.contains("this output was made by the job"), "\(again.errors)")
    }

    // MARK: tessera run

    private func killedRun() async throws -> Set<Int> { try await stoppedRun(by: SIGKILL).kept }

    /// Starts the command and ends it in the middle.
    ///
    /// - Returns: the shards that are kept, and what the command said.
    private func stoppedRun(by signal: Int32) async throws -> (kept: Set<Int>, errors: String) {
        // How long a merge takes differs by far between an idle and a busy machine.
        var milliseconds = 500
        for _ in 0..<12 {
            let run = try RunningTessera(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
            try await eventually("an output") { directory.names.contains { $0.hasPrefix("out") } }
            try await Task.sleep(for: .milliseconds(milliseconds))
            run.signal(signal)
            guard await run.exitCode() == 128 + signal else {
                try FileManager.default.removeItem(atPath: output)
                milliseconds /= 2
                continue
            }
            // Where nothing is done yet, an interrupted run leaves nothing.
            let kept = directory.names.contains("out.partial-state") ? try committed("\(output).partial-state") : []
            if !kept.isEmpty { return (kept, run.errors) }
            milliseconds = 2 * milliseconds + 20
        }
        return ([], "")
    }

    /// Nothing that stands where the output will be, and no word about what may be replaced, costs what is done.
    @Test func aRunThatIsKilledGoesOn() async throws {
        try LargeFamily.write(to: directory)
        let kept = try await killedRun()
        try #require(!kept.isEmpty)
        try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
        try directory.write("mine", to: "out/notes.txt")
        let refused = try await Tessera.run(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
        #expect(refused.exitCode == 73 && refused.errors.contains("\(kept.count) of 24 shards are kept"), "\(refused.errors)")
        try FileManager.default.removeItem(atPath: output)
        let outcome = try await Tessera.run(
            ["run", "r.yml", "out", "--json", "--overwrite"] + LargeFamily.arguments, in: directory.path)
        #expect(outcome.exitCode == 0 && outcome.errors.contains("has \(kept.count) of 24 shards"), "\(outcome.errors)")
        struct Report: Decodable { let shards, attempts: Int }
        let report = try JSONDecoder().decode(
            Report.self, from: Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.report.json")))
        #expect(report.shards == 24 && report.attempts == 24, "no shard was done twice")
        #expect(directory.names == ["a", "b", "out", "r.yml"])
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        let whole = try await Tessera.run(["run", "r.yml", "whole"] + LargeFamily.arguments, in: directory.path)
        #expect(try whole.exitCode == 0 && outputFiles(output) == outputFiles("\(directory.path)/whole"))
    }

    /// Finished shards of another recipe stay until the user gives them up, by `--overwrite` or by hand.
    @Test func anotherRecipeKeepsWhatIsDone() async throws {
        try LargeFamily.write(to: directory)
        let kept = try await killedRun()
        try #require(!kept.isEmpty)
        let names = directory.names, shards = "\(kept.count) of 24 shards"
        try directory.write("merge_method: passthrough\nmodels:\n- model: b\n", to: "r2.yml")
        for (command, words) in [
            (["run", "r2.yml", "out"], "r.yml with another text"),
            (["run", "r.yml", "out", "--set", "dtype=float16"], "r.yml with another text"),
            (["run", "r.yml", "out", "--no-model-card"], "r.yml with other options"),
            (["mergekit-yaml", "r2.yml", "out"], "r.yml with another text"),
        ] {
            let arguments = command[0] == "run" ? command + LargeFamily.arguments : command
            let refused = try await Tessera.run(arguments, in: directory.path)
            #expect(refused.exitCode == 73, "\(refused)")
            #expect(refused.errors.contains("holds \(shards) of an unfinished run of \(words)"), "\(refused.errors)")
            #expect(refused.errors.contains("rm -r ") && refused.errors.contains("give its command again"), "\(refused.errors)")
            #expect(refused.errors.contains("--overwrite") == (command[0] == "run"), "\(refused.errors)")
            #expect(try directory.names == names + ["r2.yml"] && committed("\(output).partial-state") == kept)
        }
        let outcome = try await Tessera.run(["run", "r2.yml", "out", "--overwrite"] + LargeFamily.arguments, in: directory.path)
        #expect(
            outcome.exitCode == 0 && outcome.errors.contains("discarded \(shards) of an earlier run of r.yml"),
            "\(outcome.errors)")
        #expect(directory.names == ["a", "b", "out", "r.yml", "r2.yml"])
    }

    /// An input that was written meanwhile would give an output of two halves.
    @Test func changedInputsDoNotGoOn() async throws {
        try LargeFamily.write(to: directory)
        try #require(try await !killedRun().isEmpty)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(directory.path)/b/model.safetensors"))
        try handle.seekToEnd()
        try handle.seek(toOffset: try handle.offset() - 4)
        try handle.write(contentsOf: [0, 0, 0x80, 0x3f])
        try handle.close()
        let refused = try await Tessera.run(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
        #expect(
            refused.exitCode == 65 && refused.errors.contains("of 24 shards are kept; to discard them: "), "\(refused.errors)")
        #expect(refused.errors.contains("b/model.safetensors: the file was changed"), "\(refused.errors)")
        let outcome = try await Tessera.run(["run", "r.yml", "out", "--overwrite"] + LargeFamily.arguments, in: directory.path)
        #expect(outcome.exitCode == 0 && outcome.errors.contains("begins anew"), "\(outcome.errors)")
        #expect(directory.names == ["a", "b", "out", "r.yml"])
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
    }

    /// Nobody takes an output from a process that still makes it.
    @Test func twoRunsNeverMakeOneOutput() async throws {
        try LargeFamily.write(to: directory)
        let first = try RunningTessera(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
        try await eventually("the partial output") { directory.names.contains { $0.count > 30 } }
        // Stopped, so that it does not end before the second has begun, however busy the machine is.
        first.signal(SIGSTOP)
        let second = try await Tessera.run(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
        #expect(second.exitCode == 75 && second.errors.contains("is in use by process"), "\(second.errors)")
        first.signal(SIGKILL)
        #expect(await first.exitCode() == 128 + SIGKILL)
    }

    /// Whoever presses Ctrl-C is told what is kept, how to go on and how to discard it. Both work as they are written.
    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func aRunThatIsInterruptedKeepsWhatItHasDone(signal: Int32) async throws {
        try LargeFamily.write(to: directory)
        let (kept, errors) = try await stoppedRun(by: signal)
        try #require(!kept.isEmpty)
        #expect(errors.contains("note: stopping; finishing what is being written (again: stops at once)"), "\(errors)")
        #expect(errors.contains("interrupted; \(kept.count) of 24 shards are kept"), "\(errors)")
        let words = try #require(errors.split(separator: "\n").first { $0.contains("rm -r ") })
        let names = directory.names.filter { $0.hasPrefix("out.partial-") }
        #expect(names.count == 2 && names.allSatisfy { words.contains("/\($0)") }, "\(words)")
        if signal == SIGTERM {
            let command = String(words[try #require(words.range(of: "rm -r ")).lowerBound...])
            let shell = try RunningTessera(["-c", command], in: directory.path, executable: "/bin/bash")
            #expect(await shell.exitCode() == 0 && directory.names == ["a", "b", "r.yml"], "\(directory.names)")
        }
        let again = try await Tessera.run(["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path)
        #expect(again.exitCode == 0 && directory.names == ["a", "b", "out", "r.yml"], "\(again.errors)")
        let goesOn = again.output.contains("\(kept.count) of 24 shards were made before")
        #expect(goesOn == (signal != SIGTERM), "\(again.output)")
    }
}
