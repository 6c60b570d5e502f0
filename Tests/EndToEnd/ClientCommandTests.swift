import Core
import Foundation
import TestSupport
import Testing

/// What users type at a shell: clients of a coordinator, recipes from elsewhere, mergekit's command line.
@Suite(.serialized) struct ClientCommandTests {
    private let directory: TemporaryDirectory
    private static let recipe = "cases/ties/recipe.yml"
    /// Longer than the test.
    private static let slow = ["--pause-milliseconds", "600000"]

    init() throws { directory = try TemporaryDirectory() }

    // MARK: Clients

    @Test func submitSaysTheJobFirstAndWaitFollowsIt() async throws {
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "100"])
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--json"])
        let job = try JSONDecoder().decode([String: String].self, from: Data(outcome.output.utf8))
        let id = try #require(job["job"])
        let waited = try await Tessera.run(["wait", String(id.prefix(10)), "--coordinator", cluster.jobs])
        #expect(waited.exitCode == 0 && waited.output.contains("/out: "), "\(waited.output)\(waited.errors)")
        let again = try await cluster.submit(Self.recipe, "\(directory.path)/again", ["--wait"])
        let first = try #require(again.output.split(separator: "\n").first)
        #expect(first.count == id.count && again.output.contains("/again: "), "\(again.output)")
        #expect(try await Tessera.run(["wait", "ffff", "--coordinator", cluster.jobs]).exitCode == 66)
    }

    @Test func aJobThatHasEndedIsNotCancelled() async throws {
        let cluster = try await Cluster(workers: 1)
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"])
        let id = String(try #require(outcome.output.split(separator: "\n").first))
        let cancel = try await Tessera.run(["cancel", id, "--coordinator", cluster.jobs])
        #expect(cancel.exitCode == 64 && cancel.errors.contains("has ended as 'done'"), "\(cancel.output)\(cancel.errors)")
        #expect(directory.names == ["out"])
    }

    @Test func aJobWithoutAnyWorkerSaysHowToStartOne() async throws {
        let cluster = try await Cluster()
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out")
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let hint = "start one: tessera worker --coordinator \(cluster.jobs)"
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("waits for workers: none") && status.output.contains(hint), "\(status.output)")
        let watch = try RunningTessera(["status", "--watch", "--coordinator", cluster.jobs])
        _ = try await watch.waitForOutput(hint)
    }

    /// As top does it: q ends it, and the terminal is as before.
    @Test func qEndsTheWatch() async throws {
        let cluster = try await Cluster(), terminal = try PseudoTerminal()
        let before = terminal.localFlags
        let watch = try RunningTessera(
            ["status", "--watch", "--coordinator", cluster.jobs], input: terminal.end, output: terminal.end)
        try await eventually("the watch") { terminal.received.contains("no jobs") }
        #expect(terminal.localFlags & tcflag_t(ECHO | ICANON) == 0)
        terminal.type("q")
        #expect(await watch.exitCode() == 0, "\(watch.errors)")
        #expect(terminal.localFlags == before && !terminal.received.contains("q"), "\(terminal.received)")
    }

    /// Two signals at once may end the process before the watch has ended in its own way.
    @Test(arguments: [[SIGINT], [SIGINT, SIGTERM], [SIGTERM, SIGHUP, SIGINT], [SIGQUIT]])
    func signalsLeaveTheTerminalAsItWas(signals: [Int32]) async throws {
        let cluster = try await Cluster(), terminal = try PseudoTerminal()
        let before = terminal.localFlags
        let watch = try RunningTessera(
            ["status", "--watch", "--coordinator", cluster.jobs], input: terminal.end, output: terminal.end)
        try await eventually("the watch") { terminal.received.contains("no jobs") }
        for signal in signals { watch.signal(signal) }
        let exitCode = await watch.exitCode()
        #expect(signals.contains(exitCode - 128), "\(exitCode): \(watch.errors)")
        #expect(terminal.localFlags == before)
    }

    @Test func theCoordinatorThatComesBackIsSaidToBeBack() async throws {
        let state = "\(directory.path)/state", cluster = try await Cluster(coordinator: ["--state", state])
        let watch = try RunningTessera(["status", "--watch", "--coordinator", cluster.jobs])
        _ = try await watch.waitForOutput("0 workers are connected")
        cluster.coordinator.signal(SIGKILL)
        _ = await cluster.coordinator.exitCode()
        try await eventually("the loss is said") { watch.errors.contains("lost the coordinator") }
        let again = try RunningTessera(["coordinator", "--listen", cluster.jobs, "--status", "127.0.0.1:0", "--state", state])
        try await eventually("the return is said") { watch.errors.contains("connected to the coordinator again") }
        withExtendedLifetime(again) {}
    }

    @Test func aSignalEndsTheWaitAndNotTheJob() async throws {
        let cluster = try await Cluster(workers: 1, worker: Self.slow)
        let client = try RunningTessera(
            ["submit", Self.recipe, "\(directory.path)/out", "--wait", "--coordinator", cluster.jobs])
        let id = try await client.waitForOutput("\n").trimmingCharacters(in: .whitespacesAndNewlines)
        client.signal(SIGINT)
        #expect(await client.exitCode() == 130)
        // As they are shown, so that they can be pasted.
        let options = "--coordinator \(cluster.jobs) --timeout 120"
        for command in ["wait", "cancel"] {
            #expect(client.errors.contains("tessera \(command) \(id) \(options)\n"), "\(client.errors)")
        }
        #expect(try await cluster.job(id).state == "running")
    }

    @Test(arguments: [["status"], ["submit", recipe, "out"], ["cancel", "ff"], ["wait", "ff"]])
    func aPeerThatNeverAnswersIsNotWaitedForForEver(words: [String]) async throws {
        let port = try RawListener()
        let client = try RunningTessera(words + ["--coordinator", "127.0.0.1:\(port.port)", "--timeout", "1"])
        let connection = await port.accept()
        #expect(await client.exitCode() == 69)
        #expect(client.errors.contains("did not answer within"), "\(client.errors)")
        withExtendedLifetime(connection) {}
    }

    @Test(
        arguments: [
            ["status"], ["status", "--watch"], ["status", "ff"], ["submit", recipe, "out"], ["submit", recipe, "out", "--wait"],
            ["cancel", "ff"], ["wait", "ff"],
        ],
        [("127.0.0.1:1", "the connection was refused"), ("nosuchhost.invalid:7070", "'nosuchhost.invalid' cannot be resolved")])
    func aCoordinatorThatIsNotThereIsSaidInASentence(words: [String], peer: (address: String, reason: String)) async throws {
        let outcome = try await Tessera.run(words + ["--coordinator", peer.address])
        #expect(outcome.exitCode == 69 && outcome.output.isEmpty, "\(outcome)")
        #expect(outcome.errors.contains(peer.reason) && outcome.errors.split(separator: "\n").count == 1, "\(outcome.errors)")
    }

    /// With TLS, the client would wait for the handshake before it says hello.
    @Test func aPeerThatNeverShakesHandsIsNotWaitedForForEver() async throws {
        let port = try RawListener(), certificates = try Certificates()
        let client = try RunningTessera([
            "status", "--coordinator", "127.0.0.1:\(port.port)", "--timeout", "1", "--tls-pin",
            certificates.path("127.0.0.1.pem"),
        ])
        let connection = await port.accept()
        #expect(await client.exitCode() == 69)
        #expect(client.errors.contains("there was no answer in time"), "\(client.errors)")
        withExtendedLifetime(connection) {}
    }

    @Test func environmentAndFileNameTheCoordinator() async throws {
        let cluster = try await Cluster()
        let file = "\(directory.path)/config.yml"
        try "coordinator: 127.0.0.1:1\nstatus:\n  coordinator: \(cluster.jobs)\n".write(
            toFile: file, atomically: true, encoding: .utf8)
        let usual = ["TESSERA_TIMEOUT": "120", "TESSERA_CONFIG": file]
        let status = try await Tessera.run(["status"], environment: usual)
        #expect(status.exitCode == 0 && status.output.contains("no jobs"), "\(status)")
        let wait = try await Tessera.run(["wait", "ff"], environment: usual)
        #expect(wait.exitCode == 69, "\(wait)")
        let named = try await Tessera.run(
            ["wait", "ff"], environment: usual.merging(["TESSERA_COORDINATOR": cluster.jobs]) { $1 })
        #expect(named.exitCode == 66, "\(named)")
        let wrong = try await Tessera.run(["status"], environment: ["TESSERA_COORDINATOR": "http://localhost:7070"])
        #expect(wrong.exitCode == 64 && wrong.errors.hasPrefix("error: TESSERA_COORDINATOR: "), "\(wrong)")
        let shown = try await Tessera.run(["config", "--config", file], environment: ["TESSERA_ROOT": "/a:/b"])
        #expect(shown.output.contains("\(file):3") && shown.output.contains("TESSERA_ROOT"), "\(shown)")
    }

    @Test func aJobHasAName() async throws {
        let cluster = try await Cluster(workers: 1)
        let done = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait", "--name", "nightly"])
        #expect(done.exitCode == 0, "\(done.errors)")
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("NAME") && status.output.contains(" nightly "), "\(status.output)")
    }

    // MARK: Progress

    @Test func progressForProgramsIsJSONAlone() async throws {
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/out", "--progress", "json"])
        #expect(run.exitCode == 0, "\(run)")
        let lines = run.errors.split(separator: "\n")
        let objects = lines.compactMap { try? JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any] }
        #expect(objects.count == lines.count && !lines.isEmpty, "\(run.errors)")
        #expect(objects.contains { $0["event"] as? String == "note" }, "the recipe's notes are objects too")
        let last = try #require(objects.last { $0["event"] as? String == "progress" })
        #expect(last["state"] as? String == "done" && last["bytesDone"] as? Int == last["bytesTotal"] as? Int, "\(last)")
        #expect(objects.last?["event"] as? String == "end" && objects.last?["outcome"] as? String == "done", "\(run.errors)")
    }

    /// Whatever goes wrong, programs get objects alone, and the last one says how it ended.
    @Test(arguments: [
        (["run", recipe, "/dev/null/out"], 73, "cannotCreate"), (["run", recipe], 64, "usage"),
        (["run", recipe, "out", "--threads", "many"], 64, "usage"), (["run", "none.yml", "out"], 66, "inputMissing"),
        (["run", recipe, "out", "--set", "merge_method=tise"], 65, "badData"), (["rum", recipe, "out"], 64, "usage"),
        (["submit", recipe, "out", "--wait", "--coordinator", "127.0.0.1:1"], 69, "unreachable"),
    ])
    func mistakesAreObjectsToo(words: [String], exitCode: Int32, code: String) async throws {
        for style in [["--progress", "json"], ["--progress=json"]] {
            let outcome = try await Tessera.run(words + style)
            #expect(outcome.exitCode == exitCode, "\(outcome)")
            let lines = outcome.errors.split(separator: "\n")
            let objects = lines.compactMap { try? JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any] }
            #expect(objects.count == lines.count, "\(outcome.errors)")
            let error = try #require(objects.first { $0["event"] as? String == "error" }, "\(outcome.errors)")
            #expect(error["code"] as? String == code && error["problem"] != nil && error["text"] != nil, "\(error)")
            let end = try #require(objects.last)
            #expect(end["event"] as? String == "end" && end["outcome"] as? String == "failed", "\(end)")
            #expect(end["exitCode"] as? Int32 == exitCode, "\(end)")
        }
    }

    @Test func aSignalIsTheLastWord() async throws {
        let cluster = try await Cluster(workers: 1, worker: Self.slow)
        let client = try RunningTessera(
            ["submit", Self.recipe, "\(directory.path)/out", "--wait", "--progress", "json", "--coordinator", cluster.jobs])
        _ = try await client.waitForOutput("\n")
        client.signal(SIGTERM)
        #expect(await client.exitCode() == 143)
        let last = try #require(client.errors.split(separator: "\n").last)
        #expect(last.contains(#""event":"end""#) && last.contains(#""outcome":"interrupted""#), "\(client.errors)")
    }

    @Test func progressForAFileHasAFirstAndALastLine() async throws {
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/out"])
        let lines = run.errors.split(separator: "\n").filter { $0.contains(" shards") }
        #expect(lines.last?.contains("100 %") == true && lines.last?.contains("done after ") == true, "\(run.errors)")
        #expect(!run.errors.contains("\u{1b}"))
    }

    @Test func aStatusThatIsWatchedIntoAFileSaysChangesOnly() async throws {
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "300"])
        let submitted = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--shard-size", "1000"])
        let id = submitted.output.trimmingCharacters(in: .whitespacesAndNewlines)
        let watch = try await Tessera.run(["status", id, "--watch", "--json", "--coordinator", cluster.jobs])
        #expect(watch.exitCode == 0, "\(watch.errors)")
        struct Line: Decodable { let jobs: [Cluster.Job]; let workers: [Cluster.Worker] }
        let lines = try watch.output.split(separator: "\n").map {
            try JSONDecoder().decode(Line.self, from: Data($0.utf8))
        }
        #expect(lines.last?.jobs.first?.state == "done")
        // What the lines say apart from times and bytes.
        let said = lines.map { line in
            line.jobs.map { "\($0.state) \($0.attempts) \($0.shards)" } + line.workers.map { "\($0.state) \($0.leases)" }
        }
        #expect(zip(said, said.dropFirst()).allSatisfy { $0 != $1 }, "\(said)")
    }

    @Test func aJobThatIsFollowedWithoutWorkersSaysHowToStartOne() async throws {
        let cluster = try await Cluster()
        let client = try RunningTessera(
            ["submit", Self.recipe, "\(directory.path)/out", "--wait", "--coordinator", cluster.jobs])
        try await eventually("a note") { client.errors.contains("start one: tessera worker --coordinator \(cluster.jobs)") }
        try cluster.addWorker()
        #expect(await client.exitCode() == 0, "\(client.errors)")
    }

    // MARK: Logs

    @Test func logsAreJSONWithWhatTheyAreAbout() async throws {
        let cluster = try await Cluster(
            workers: 1, coordinator: ["--log-format", "json"], worker: ["--log-format", "json", "--log-level", "debug"])
        let done = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"])
        let id = String(try #require(done.output.split(separator: "\n").first))
        let worker = try #require(cluster.workers.first)
        worker.signal(SIGKILL)
        try await eventually("the loss") { cluster.coordinator.errors.contains("worker lost") }
        func objects(_ log: String) -> [[String: String]] {
            log.split(separator: "\n").map { line in
                let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
                if object == nil { Issue.record("no object: \(line)") }
                return (object ?? [:]).mapValues { "\($0)" }
            }
        }
        let told = objects(cluster.coordinator.errors)
        let ready = try #require(told.first { $0["message"] == "coordinator ready" })
        #expect(ready["job_port"] == cluster.jobs && ready["version"] != nil && ready["roots"] == "any")
        #expect(told.allSatisfy { $0["host"] != nil && $0["time"] != nil && $0["level"] != nil })
        #expect(told.contains { $0["message"] == "worker lost" && $0["worker"] == "worker-1" && $0["reason"] != nil })
        let finished = objects(worker.errors).first { $0["message"] == "shard finished" }
        #expect(finished?["job"] == id && finished?["worker"] == "worker-1" && finished?["shard"] != nil, "\(worker.errors)")
        #expect(worker.errors.contains(/"bytes":[0-9]+/) && worker.errors.contains(/"shard":[0-9]+/), "\(worker.errors)")
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("worker-1 (127.0.0.1) was lost "), "\(status.output)")
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func aWorkerThatIsStoppedIsNotLost(signal: Int32) async throws {
        let cluster = try await Cluster(workers: 1)
        let worker = try #require(cluster.workers.first)
        try await eventually("a welcome") { worker.errors.contains("joined the coordinator") }
        worker.signal(signal)
        try await eventually("the end") { cluster.coordinator.errors.contains("worker l") }
        #expect(cluster.coordinator.errors.contains("worker left"), "\(cluster.coordinator.errors)")
    }

    @Test func aURLIsNoAddress() async throws {
        let outcome = try await Tessera.run(["status", "--coordinator", "http://localhost:7070"])
        #expect(outcome.exitCode == 64, "\(outcome.errors)")
    }

    // MARK: Recipes

    @Test func aRecipeMayComeFromStdin() async throws {
        let file = try #require(FileHandle(forReadingAtPath: "\(Repository.golden)/\(Self.recipe)"))
        let run = try RunningTessera(["run", "-", "\(directory.path)/out"], input: file)
        #expect(await run.exitCode() == 0, "\(run.errors)")
        let usual = try await Tessera.run(["run", Self.recipe, "\(directory.path)/usual"])
        #expect(usual.exitCode == 0)
        let (out, other) = (try outputFiles("\(directory.path)/out"), try outputFiles("\(directory.path)/usual"))
        #expect(out.filter { $0.key.hasSuffix(".safetensors") } == other.filter { $0.key.hasSuffix(".safetensors") })
    }

    @Test func keysOfARecipeAreSetByTheCommandLine() async throws {
        let planned = try await Tessera.run(["plan", Self.recipe, "--set", "merge_method=no_such_method"])
        #expect(planned.exitCode == 65 && planned.errors.contains("no_such_method"), "\(planned.output)\(planned.errors)")
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/out", "--set", "parameters.lambda=0.25"])
        #expect(run.exitCode == 0, "\(run.errors)")
        #expect(try String(contentsOfFile: "\(directory.path)/out/recipe.yml", encoding: .utf8).contains("lambda: 0.25"))
        let wrong = try await Tessera.run(["plan", Self.recipe, "--set", "models.99.model=x"])
        #expect(wrong.exitCode == 64 && wrong.errors.contains("models.99.model=x"), "\(wrong.errors)")
    }

    // MARK: Outputs

    @Test func directoriesAboveTheOutputAreMade() async throws {
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/a/b/out"])
        #expect(run.exitCode == 0, "\(run.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/a/b") == ["out"])
        // A recipe with a mistake leaves none of them behind.
        let wrong = try await Tessera.run(
            ["run", Self.recipe, "\(directory.path)/c/d/out", "--set", "merge_method=no_such_method"])
        #expect(wrong.exitCode == 65 && directory.names == ["a"], "\(wrong.errors) \(directory.names)")
    }

    @Test func aPlaceThatCannotBeDoesNotHideTheRecipesMistakes() async throws {
        let mistake = ["--set", "merge_method=no_such_method"]
        // Nobody can create a directory there.
        let run = try await Tessera.run(["run", Self.recipe, "/proc/no/out"] + mistake)
        #expect(run.exitCode == 73 && run.errors.contains("no_such_method"), "\(run.errors)")
        let cluster = try await Cluster()
        let submit = try await cluster.submit(Self.recipe, "\(directory.path)/no/such/out", mistake)
        #expect(submit.exitCode == 73 && submit.errors.contains("no_such_method"), "\(submit.errors)")
    }

    @Test func aMisspelledParameterIsSaidWithTheOtherMistakes() async throws {
        let plan = try await Tessera.run([
            "plan", Self.recipe, "--set", "parameters.lamda=1", "--set", "models.0.model=no/such/model",
        ])
        #expect(plan.exitCode == 66 && plan.errors.contains("no parameter 'lamda'"), "\(plan)")
    }

    // MARK: mergekit

    @Test func aLinkIsMergekitsCommand() async throws {
        let link = "\(directory.path)/mergekit-yaml", out = "\(directory.path)/out"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: Tessera.path)
        for _ in 1...2 {
            let run = try RunningTessera(
                [Self.recipe, out, "--cuda", "--lazy-unpickle", "--out-shard-size", "1B", "-j", "1", "-q"], executable: link)
            #expect(await run.exitCode() == 0, "\(run.errors)")
            #expect(run.errors.contains("ignored") && run.errors.contains("--cuda, --lazy-unpickle"), "\(run.errors)")
        }
        let usual = try await Tessera.run(["run", Self.recipe, "\(directory.path)/usual"])
        #expect(usual.exitCode == 0)
        let (config, recipe) = (try outputFiles(out)["mergekit_config.yml"], try outputFiles(out)["recipe.yml"])
        #expect(config == recipe && config != nil)
        #expect(try await Tessera.run(["verify", out]).exitCode == 0)
        #expect(
            try outputFiles(out).filter { $0.key.hasSuffix(".safetensors") }
                == outputFiles("\(directory.path)/usual").filter { $0.key.hasSuffix(".safetensors") })
        let refused = try RunningTessera([Self.recipe, out, "--no-safe-serialization"], executable: link)
        #expect(await refused.exitCode() == 64)
    }
}
