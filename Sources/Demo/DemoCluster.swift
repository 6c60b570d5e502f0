import Core
import Engine
import Foundation
import Protocol
import Synchronization

/// A coordinator and workers in separate processes on loopback.
final class DemoCluster: Sendable {
    let jobs: HostPort
    let status: HostPort
    private let processes: Mutex<[String: Process]>

    private init(jobs: HostPort, status: HostPort, processes: [String: Process]) {
        self.jobs = jobs
        self.status = status
        self.processes = Mutex(processes)
    }

    /// Starts all processes and waits until every worker has joined.
    ///
    /// - Parameters:
    ///   - pace: the pause of each worker before a shard, in milliseconds.
    ///   - logs: the directory for the log of each process.
    static func start(workers: [String], pace: Int, logs: String) async throws -> DemoCluster {
        let coordinator = try tessera(
            ["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"], log: "\(logs)/coordinator.log")
        let pipe = Pipe()
        coordinator.standardOutput = pipe
        try coordinator.run()
        guard let line = firstLine(of: pipe.fileHandleForReading), let (jobs, status) = addresses(in: line) else {
            coordinator.terminate()
            throw TesseraError(.internal, "the coordinator did not start", file: "\(logs)/coordinator.log")
        }
        var processes = ["coordinator": coordinator]
        for name in workers {
            let worker = try tessera(
                ["worker", "--coordinator", "\(jobs)", "--name", name, "--threads", "1", "--pause-milliseconds", "\(pace)"],
                log: "\(logs)/\(name).log")
            try worker.run()
            processes[name] = worker
        }
        let cluster = DemoCluster(jobs: jobs, status: status, processes: processes)
        do {
            try await cluster.waitForWorkers(workers.count)
        } catch {
            cluster.stop()
            throw error
        }
        return cluster
    }

    /// Kills a process with SIGKILL.
    func kill(_ name: String) {
        if let process = processes.withLock({ $0[name] }) { Foundation.kill(process.processIdentifier, SIGKILL) }
    }

    func stop() {
        for process in processes.withLock({ $0.values }) where process.isRunning {
            process.interrupt()
            process.waitUntilExit()
        }
    }

    private func waitForWorkers(_ count: Int) async throws {
        for _ in 0..<200 {
            let joined = try? await CoordinatorClient.connect(to: CoordinatorAddress(jobs)) {
                try await $0.status().workers.count
            }
            if joined == count { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw TesseraError(.unreachable, "the workers did not join the coordinator at \(jobs)")
    }

    /// Starts this executable with other arguments.
    private static func tessera(_ arguments: [String], log: String) throws -> Process {
        guard FileManager.default.createFile(atPath: log, contents: nil), let handle = FileHandle(forWritingAtPath: log) else {
            throw TesseraError(.cannotCreate, "cannot create the log", file: log)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = arguments
        process.standardOutput = handle
        process.standardError = handle
        process.standardInput = FileHandle.nullDevice
        return process
    }

    private static func firstLine(of handle: FileHandle) -> String? {
        var line = Data()
        while let byte = try? handle.read(upToCount: 1), let value = byte.first {
            if value == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(value)
        }
        return nil
    }

    /// `ready: jobs on HOST:PORT, status on http://HOST:PORT`
    private static func addresses(in line: String) -> (jobs: HostPort, status: HostPort)? {
        let words = line.split(whereSeparator: { " ,".contains($0) }).map(String.init)
        let found = words.compactMap { HostPort($0.replacingOccurrences(of: "http://", with: "")) }
        return found.count == 2 ? (found[0], found[1]) : nil
    }
}
