import Foundation
import TestSupport
import Testing

/// A file system in memory that is as small as a test wants it. Unmounted with the value that holds it.
private final class SmallDisk {
    let path: String

    /// - Throws: where mounting is not permitted.
    init(bytes: Int, at path: String) throws {
        self.path = path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        guard Self.run("mount", ["-t", "tmpfs", "-o", "size=\(bytes)", "tessera-test", path]) == 0 else {
            throw CocoaError(.fileWriteNoPermission)
        }
    }

    deinit { _ = Self.run("umount", ["-l", path]) }

    /// Shows the disk at another path, too, until `hide`.
    func show(at other: String) { _ = Self.run("mount", ["--bind", path, other]) }

    static func hide(_ other: String) { _ = run("umount", ["-l", other]) }

    func fill() throws {
        let path = "\(path)/ballast"
        try Data().write(to: URL(fileURLWithPath: path))
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        while (try? file.write(contentsOf: Data(repeating: 1, count: 4096))) != nil {}
        try file.close()
    }

    func free() throws { try FileManager.default.removeItem(atPath: "\(path)/ballast") }

    private static func run(_ command: String, _ arguments: [String]) -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [command] + arguments
        (process.standardOutput, process.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
        guard (try? process.run()) != nil else { return -1 }
        process.waitUntilExit()
        return process.terminationStatus
    }

    static let isPermitted: Bool = {
        guard let directory = try? TemporaryDirectory() else { return false }
        return (try? SmallDisk(bytes: 1 << 20, at: "\(directory.path)/disk")) != nil
    }()
}

/// Disks that are full in the middle of a job, and have space again later.
@Suite(.serialized, .enabled(if: SmallDisk.isPermitted, "small disks need the right to mount a tmpfs: run as root"))
struct FullDiskTests {
    private let directory: TemporaryDirectory
    private static let recipe = "cases/ties/recipe.yml"
    /// A shard of every few tensors, so slow that a busy machine finds the job in its middle.
    private static let slow = ["--pause-milliseconds", "3000"]
    private static let shards = ["--shard-size", "10kB"]

    init() throws { directory = try TemporaryDirectory() }

    /// The output's disk is full, whoever writes to it: the job is paused and says so, a kill changes nothing, and with space it
    /// goes on by itself.
    @Test(arguments: ["auto", "direct", "return"])
    func aFullDiskPausesTheJob(blocks: String) async throws {
        let disk = try SmallDisk(bytes: 4 << 20, at: "\(directory.path)/disk"), output = "\(disk.path)/out"
        let state = ["--state", "\(directory.path)/state"]
        let first = try await Cluster(workers: 2, coordinator: state, worker: Self.slow + ["--blocks", blocks])
        let submit = try RunningTessera(
            ["submit", Self.recipe, output, "--wait", "--coordinator", first.jobs] + Self.shards)
        try await eventually("a committed shard") {
            try await first.get("/api/v1/jobs", as: [Cluster.Job].self).first?.shards.committed ?? 0 > 0
        }
        try disk.fill()
        try await eventually("a pause") {
            try await first.get("/api/v1/jobs", as: [Cluster.Job].self).first?.state == "paused"
        }
        let id = try await first.get("/api/v1/jobs", as: [Cluster.Job].self)[0].id
        let paused = try await first.job(id)
        #expect(paused.shards.leased == 0 && paused.shards.committed > 0)
        let status = try await Tessera.run(["status", id, "--coordinator", first.jobs])
        #expect(status.output.contains("paused") && status.output.contains("No space left on device"), "\(status.output)")
        #expect(status.output.contains(".partial-\(id)") && status.output.contains("goes on by itself"), "\(status.output)")
        // Nobody has to try anything again, and the probe's file is nobody's business.
        #expect(!status.output.contains("try again") && !status.output.contains(".tessera-probe"), "\(status.output)")
        #expect(first.coordinator.errors.contains("job paused until"), "\(first.coordinator.errors)")
        try await eventually("a remark") { submit.errors.contains("the job is paused") }
        // A full disk at the start of the next coordinator loses nothing either.
        first.coordinator.signal(SIGKILL)
        _ = await first.coordinator.exitCode()
        let second = try await Cluster(coordinator: ["--listen", first.jobs] + state)
        try await eventually("a pause") { try await second.job(id).state == "paused" }
        #expect(try await second.job(id).shards.committed >= paused.shards.committed)
        try disk.free()
        #expect(await submit.exitCode() == 0, "\(submit.errors)")
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        let done = try await second.job(id)
        #expect(done.shardDetails?.count(where: { $0.attempts == 1 }) ?? 0 >= paused.shards.committed)
    }

    /// The output's file system is gone for a while: that is not the same as an output that somebody removed.
    @Test func aFileSystemThatGoesAwayPausesTheJob() async throws {
        let disk = try SmallDisk(bytes: 4 << 20, at: "\(directory.path)/disk"), place = "\(directory.path)/place"
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
        disk.show(at: place)
        defer { SmallDisk.hide(place) }
        let cluster = try await Cluster(
            workers: 1, coordinator: ["--state", "\(directory.path)/state"], worker: Self.slow)
        let id = try await cluster.submit(Self.recipe, "\(place)/out", Self.shards).output
            .trimmingCharacters(in: .whitespacesAndNewlines)
        try await eventually("a committed shard") { try await cluster.job(id).shards.committed > 0 }
        SmallDisk.hide(place)
        try await eventually("a pause") { try await cluster.job(id).state == "paused" }
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("the file system of the unfinished output is not mounted"), "\(status.output)")
        disk.show(at: place)
        try await eventually("the end") { try await cluster.job(id).state == "done" }
        #expect(try await Tessera.run(["verify", "\(place)/out"]).exitCode == 0)
    }

    /// The journal's disk is full: nothing counts that it does not know, and the job waits.
    @Test func aFullJournalPausesTheJob() async throws {
        let disk = try SmallDisk(bytes: 1 << 20, at: "\(directory.path)/disk"), output = "\(directory.path)/out"
        let cluster = try await Cluster(
            workers: 1, coordinator: ["--state", "\(disk.path)/state"], worker: Self.slow)
        let id = try await cluster.submit(Self.recipe, output, Self.shards).output
            .trimmingCharacters(in: .whitespacesAndNewlines)
        try disk.fill()
        try await eventually("a pause that names the journal") {
            let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
            return status.output.contains("paused") && status.output.contains("journal")
        }
        // The job does not go on before there is room, however often that is tried.
        try await eventually("a wait of some tries") {
            try await Tessera.run(["status", id, "--coordinator", cluster.jobs]).output.contains(/tries again in [4-8] s/)
        }
        #expect(
            cluster.coordinator.errors.components(separatedBy: "job paused until").count == 2, "\(cluster.coordinator.errors)")
        try disk.free()
        try await eventually("the end") { try await cluster.job(id).state == "done" }
        #expect(!cluster.coordinator.errors.contains("attempt failed"), "\(cluster.coordinator.errors)")
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
    }

    /// Zeros that take no time to write, and some seconds to merge.
    private func writeModel(_ name: String, tensors: Int, bytes: Int) throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/\(name)", withIntermediateDirectories: true)
        let entries = (0..<tensors).map { index in
            let offsets = "\(index * bytes),\((index + 1) * bytes)"
            return "\"layers.\(index).w\":{\"dtype\":\"F32\",\"shape\":[\(bytes / 4)],\"data_offsets\":[\(offsets)]}"
        }
        let header = Array("{\(entries.joined(separator: ","))}".utf8)
        let url = URL(fileURLWithPath: "\(directory.path)/\(name)/model.safetensors")
        try Data((0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header).write(to: url)
        let file = try FileHandle(forWritingTo: url)
        try file.truncate(atOffset: UInt64(8 + header.count + tensors * bytes))
        try file.close()
    }

    /// Before anything is done, in the units of people.
    @Test func aDiskThatIsTooSmallIsTold() async throws {
        let disk = try SmallDisk(bytes: 2_048_000, at: "\(directory.path)/disk")
        try writeModel("a", tensors: 4, bytes: 1 << 20)
        try directory.write("merge_method: passthrough\nmodels:\n- model: a\n", to: "r.yml")
        let run = try await Tessera.run(["run", "r.yml", "\(disk.path)/out"], in: directory.path)
        #expect(run.exitCode == 74, "\(run.errors)")
        let words = /cannot reserve 4\.19 MB for the file: No space left on device \((\d\.\d+) MB free\) — free some space/
        let free = try #require(run.errors.firstMatch(of: words), "\(run.errors)")
        #expect(try #require(Double(free.1)) < 2.05, "\(run.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: disk.path) == [])
    }

    /// A run has somebody who waits for it: it ends, and the same command goes on.
    @Test func aRunOnAFullDiskKeepsItsShards() async throws {
        let disk = try SmallDisk(bytes: 128 << 20, at: "\(directory.path)/disk"), output = "\(disk.path)/out"
        for model in ["a", "b"] { try writeModel(model, tensors: 24, bytes: 4 << 20) }
        try directory.write(
            "merge_method: ties\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.5}\n", to: "r.yml")
        let arguments = ["run", "r.yml", output, "--threads", "1", "--shard-size", "4MB"]
        let run = try RunningTessera(arguments, in: directory.path)
        try await eventually("an output") {
            (try? FileManager.default.contentsOfDirectory(atPath: disk.path))?.contains { $0.count > 20 } == true
        }
        // Stopped, so that it does not end before the disk is full.
        run.signal(SIGSTOP)
        try disk.fill()
        run.signal(SIGCONT)
        #expect(await run.exitCode() == 74, "\(run.errors)")
        // The output or the journal, whichever grows first.
        let isSaid = ["No space left on device", "the disk is full"].contains { run.errors.contains($0) }
        #expect(isSaid, "\(run.errors)")
        try disk.free()
        let again = try await Tessera.run(arguments, in: directory.path)
        #expect(again.exitCode == 0, "\(again.errors)")
        #expect(!run.errors.contains("shards are kept") || again.errors.contains("goes on as the job"), "\(again.errors)")
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
    }
}
