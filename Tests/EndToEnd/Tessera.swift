import Foundation
import TestSupport
import Testing

/// The executable under test, which the build puts beside the tests.
enum Tessera {
    struct Outcome: Sendable {
        let exitCode: Int32
        let output: String
        let errors: String
    }

    static let path =
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")).map {
            URL(fileURLWithPath: $0).deletingLastPathComponent().path + "/tessera"
        } ?? "tessera"

    /// Runs the command to its end.
    ///
    /// - Parameter environment: variables besides this process's own.
    static func run(
        _ arguments: [String], in directory: String = Repository.golden, environment: [String: String] = [:]
    ) async throws -> Outcome {
        let running = try RunningTessera(arguments, in: directory, environment: environment)
        let code = await running.exitCode()
        return Outcome(exitCode: code, output: running.output, errors: running.errors)
    }
}

/// A process of ours, `tessera` unless another is named. It is killed with the value that holds it.
final class RunningTessera: Sendable {
    private let process: Process
    private let logs: TemporaryDirectory
    private let ending: AsyncStream<Int32>

    init(
        _ arguments: [String], in directory: String = Repository.golden, environment: [String: String] = [:],
        executable: String = Tessera.path, input: FileHandle = .nullDevice, output: FileHandle? = nil
    ) throws {
        let process = Process(), logs = try TemporaryDirectory()
        process.executableURL = URL(fileURLWithPath: executable)
        // The coordinator of a test shares two processors with all other tests.
        let isClient = executable == Tessera.path && arguments.contains("--coordinator") && arguments[0] != "worker"
        process.arguments = arguments + (isClient && !arguments.contains("--timeout") ? ["--timeout", "120"] : [])
        process.currentDirectoryURL = URL(fileURLWithPath: directory)
        if !environment.isEmpty {
            process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        }
        process.standardInput = input
        process.standardOutput =
            try output ?? FileHandle(forWritingTo: URL(fileURLWithPath: try logs.write("", to: "stdout")))
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: try logs.write("", to: "stderr")))
        let (ending, input) = AsyncStream<Int32>.makeStream()
        process.terminationHandler = {
            input.yield($0.terminationReason == .exit ? $0.terminationStatus : 128 + $0.terminationStatus)
            input.finish()
        }
        try process.run()
        self.process = process
        self.logs = logs
        self.ending = ending
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// Waits for the end; 128 and the signal's number for a process that a signal ended. May be asked once.
    func exitCode() async -> Int32 {
        for await code in ending { return code }
        return -1
    }

    var isRunning: Bool { process.isRunning }

    /// Bytes of memory that the process holds beside mapped files; `nil` when it is gone.
    var anonymousMemory: Int? {
        guard let status = try? String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("RssAnon:") })
        else { return nil }
        return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }

    /// Files and sockets that the process has open.
    var descriptorCount: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process.processIdentifier)/fd").count) ?? 0
    }

    /// Whether the process has the file open. To search the text of all that it has mapped takes longer under a sanitizer.
    func hasOpen(_ path: String) -> Bool {
        let folder = "/proc/\(process.processIdentifier)/fd", files = FileManager.default
        return (try? files.contentsOfDirectory(atPath: folder))?.contains {
            (try? files.destinationOfSymbolicLink(atPath: "\(folder)/\($0)")) == path
        } ?? false
    }

    func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    var output: String { (try? String(contentsOfFile: "\(logs.path)/stdout", encoding: .utf8)) ?? "" }
    var errors: String { (try? String(contentsOfFile: "\(logs.path)/stderr", encoding: .utf8)) ?? "" }

    /// Waits until the output holds `text`.
    func waitForOutput(_ text: String) async throws -> String {
        try await eventually("'\(text)' in the output of \(process.arguments ?? []), which said: \(output)\(errors)") {
            output.contains(text)
        }
        return output
    }
}

/// A coordinator and workers on loopback.
final class Cluster {
    let coordinator: RunningTessera
    let jobs: String
    let status: String
    private(set) var workers: [RunningTessera] = []

    init(workers count: Int = 0, coordinator arguments: [String] = [], worker workerArguments: [String] = []) async throws {
        coordinator = try RunningTessera(["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"] + arguments)
        let line = try await coordinator.waitForOutput("ready: jobs on ")
        let words = line.split(whereSeparator: { " ,\n".contains($0) }).filter { $0.contains(":") && $0.contains("127") }
        try #require(words.count == 2, "\(line)")
        jobs = String(words[0])
        status = String(words[1])
        for _ in 0..<count { try addWorker(workerArguments) }
        try await waitForWorkers(count)
    }

    /// Every other worker returns its blocks, so that jobs of several workers are done in both ways at once.
    @discardableResult
    func addWorker(_ arguments: [String] = []) throws -> RunningTessera {
        let name = "worker-\(workers.count + 1)"
        let arguments = arguments.contains("--blocks") || workers.count % 2 == 1 ? arguments : arguments + ["--blocks", "return"]
        let worker = try RunningTessera(["worker", "--coordinator", jobs, "--name", name, "--threads", "1"] + arguments)
        workers.append(worker)
        return worker
    }

    func waitForWorkers(_ count: Int) async throws {
        try await eventually("\(count) workers") { try await get("/api/v1/workers", as: [Worker].self).count >= count }
    }

    func submit(
        _ recipe: String, _ output: String, _ arguments: [String] = [], in directory: String = Repository.golden
    ) async throws -> Tessera.Outcome {
        try await Tessera.run(["submit", recipe, output, "--coordinator", jobs] + arguments, in: directory)
    }

    // MARK: Status port

    struct Job: Decodable {
        struct Shards: Decodable { let total, pending, leased, committed: Int }
        struct Shard: Decodable { let label, state: String; let attempts: Int; let workers: [String] }
        let id, state, method, output: String
        let shards: Shards
        let attempts: Int
        let shardDetails: [Shard]?
    }

    struct Worker: Decodable { let name, state: String; let leases, bytesDone, bytesDirect: Int }

    func get<Value: Decodable>(_ path: String, as: Value.Type) async throws -> Value {
        try JSONDecoder().decode(Value.self, from: Data(try await HTTP.get(status + path).body.utf8))
    }

    func job(_ id: String) async throws -> Job { try await get("/api/v1/jobs/\(id)", as: Job.self) }
}

/// As curl does it: one request, one answer.
enum HTTP {
    static func get(_ url: String, host: String = "localhost") async throws -> (status: Int, body: String) {
        let parts = url.replacingOccurrences(of: "http://", with: "").split(separator: "/", maxSplits: 1)
        let connection = try RawConnection(String(parts[0]))
        connection.send(
            Array("GET /\(parts.count > 1 ? parts[1] : "") HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n".utf8))
        let answer = String(decoding: await connection.readToEnd(), as: UTF8.self)
        guard let end = answer.range(of: "\r\n\r\n"), let status = Int(answer.dropFirst(9).prefix(3)) else { return (0, answer) }
        return (status, String(answer[end.upperBound...]))
    }
}

/// The files of an output that have to be the same on every run.
func outputFiles(_ directory: String) throws -> [String: Data] {
    var files: [String: Data] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name != "tessera.report.json" {
        files[name] = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))
    }
    return files
}

extension TemporaryDirectory {
    /// The models `a` and `b` of one tensor each, and `r.yml` with the recipe.
    static func withTwoModels(recipe: String) throws -> TemporaryDirectory {
        let directory = try TemporaryDirectory()
        for (model, value) in [("a", Float(1)), ("b", 2)] {
            try TestTensor.writeCheckpoint("\(directory.path)/\(model)", [("w", TestTensor([value, value]))])
        }
        try directory.write(recipe, to: "r.yml")
        return directory
    }
}
