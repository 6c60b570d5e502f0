import Core
import Foundation
import TestSupport
import Testing

/// Inputs that somebody writes to while a job reads them. No process dies of that, and no output is made of two versions.
@Suite(.serialized) struct ChangedInputTests {
    private let directory: TemporaryDirectory
    private var model: String { "\(directory.path)/b/model.safetensors" }

    init() throws { directory = try TemporaryDirectory() }

    enum Change: CaseIterable {
        /// As `truncate -s`: pages that are mapped are gone.
        case cutShort
        /// As `rsync --inplace`: size and header stay.
        case overwritten
        /// As before, and the time of the contents is set back.
        case overwrittenInSilence

        func make(of path: String) throws {
            let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path)), size = try handle.seekToEnd()
            switch self {
            case .cutShort: try handle.truncate(atOffset: size / 8)
            case .overwritten, .overwrittenInSilence:
                try handle.seek(toOffset: size - 4)
                try handle.write(contentsOf: [0, 0, 0x80, 0x3f])
            }
            try handle.close()
            if self == .overwrittenInSilence { try Self.setTime(of: path) }
        }

        /// One that can be set again exactly.
        static func setTime(of path: String) throws {
            let date = Date(timeIntervalSince1970: 1_700_000_000)
            try FileManager.default.setAttributes([.modificationDate: date], ofItemAtPath: path)
        }
    }

    /// Starts a run and does something to it in the middle of its work.
    ///
    /// - Returns: the process, which has ended or will.
    private func run(_ intervene: @escaping @Sendable (RunningTessera) -> Void) async throws -> (RunningTessera, code: Int32) {
        let model = model, directory = directory
        for _ in 0..<20 {
            // Without Swift's own handler of such signals, which takes its time.
            let run = try RunningTessera(
                ["run", "r.yml", "out"] + LargeFamily.arguments, in: directory.path,
                environment: ["SWIFT_BACKTRACE": "enable=no"])
            // On a thread of its own: a second is enough for the merge, and the tests' own threads may be busy for longer.
            let isInTime = await withCheckedContinuation { continuation in
                Thread.detachNewThread {
                    // Planning opens the file as well, and is over when there is a place for the output.
                    while run.isRunning, !run.hasOpen(model) || !directory.names.contains(where: { $0.count > 30 }) {
                        usleep(500)
                    }
                    run.signal(SIGSTOP)
                    intervene(run)
                    let isRunning = run.isRunning
                    run.signal(SIGCONT)
                    continuation.resume(returning: isRunning)
                }
            }
            let code = await run.exitCode()
            // A run that has read everything before goes to its end.
            if isInTime, code != 0 { return (run, code) }
            try FileManager.default.removeItem(atPath: "\(directory.path)/out")
            try LargeFamily.write(to: directory)
            try Change.setTime(of: model)
        }
        throw TesseraError(.temporary, "every run ended before anything could be done to it")
    }

    @Test(arguments: Change.allCases)
    func aRunStopsAndSaysWhy(_ change: Change) async throws {
        try LargeFamily.write(to: directory)
        try Change.setTime(of: model)
        let model = model
        let (run, code) = try await run { _ in #expect(throws: Never.self) { try change.make(of: model) } }
        #expect(code == (change == .overwrittenInSilence ? 75 : 65), "\(run.errors)")
        #expect(run.errors.contains(model), "\(run.errors)")
        #expect(!directory.names.contains("out"))
    }

    /// The handler answers for mapped inputs alone.
    @Test func anotherBusErrorStillEndsTheProcess() async throws {
        try LargeFamily.write(to: directory)
        let (_, code) = try await run { $0.signal(SIGBUS) }
        #expect(code == 128 + SIGBUS)
    }

    /// A worker whose own copy changes under it goes on, with the coordinator's.
    @Test(arguments: [Change.cutShort, .overwritten])
    func aWorkerGoesOn(_ change: Change) async throws {
        try LargeFamily.write(to: directory)
        try LargeFamily.write(to: directory, below: "copy/")
        let cluster = try await Cluster(coordinator: ["--root", directory.path, "--output-root", directory.path])
        let worker = try cluster.addWorker(["--root", "\(directory.path)/copy", "--pause-milliseconds", "2000"])
        try await cluster.waitForWorkers(1)
        let job = try RunningTessera(
            ["submit", "r.yml", "out", "--wait", "--coordinator", cluster.jobs, "--shard-size", "4MB"], in: directory.path)
        try await eventually("a shard") {
            try await cluster.get("/api/v1/jobs", as: [Cluster.Job].self).contains { $0.shards.committed > 0 }
        }
        worker.signal(SIGSTOP)
        try change.make(of: "\(directory.path)/copy/b/model.safetensors")
        worker.signal(SIGCONT)
        #expect(await job.exitCode() == 0, "\(job.errors)")
        #expect(worker.isRunning, "\(worker.errors)")
        #expect(worker.errors.contains("fetching an input from the coordinator instead"), "\(worker.errors)")
        let whole = try await Tessera.run(["run", "r.yml", "whole", "--shard-size", "4MB"], in: directory.path)
        #expect(whole.exitCode == 0, "\(whole.errors)")
        #expect(try outputFiles("\(directory.path)/out") == outputFiles("\(directory.path)/whole"))
    }
}
