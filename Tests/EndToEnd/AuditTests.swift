import Core
import Foundation
import TestSupport
import Testing

/// Audits by real workers, whose hosts are told apart by the boot that each sees.
@Suite struct AuditTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// The command in a namespace of its own in which the machine seems to have been booted another time.
    private func onHost(_ name: String, _ command: [String]) throws -> [String] {
        let boot = try directory.write("\(name)\n", to: "boot-\(name)")
        return [
            "--user", "--map-root-user", "--mount", "sh", "-c",
            "mount --bind \(boot) /proc/sys/kernel/random/boot_id && exec \"$@\"", "sh",
        ] + command
    }

    /// Makes one number of each layer larger, so that TIES keeps it, where no sample of the file looks: as bad memory would, on
    /// every reading.
    private func spoil(_ file: String) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: file))
        let size = Int(try handle.seekToEnd()), sampled = ContentSample.ranges(size: size)
        for layer in 0..<24 {
            var place = size - (layer + 1) * LargeFamily.layerBytes + LargeFamily.layerBytes / 2
            while sampled.contains(where: { $0.contains(place) }) { place += ContentSample.pageBytes }
            try handle.seek(toOffset: UInt64(place))
            try handle.write(contentsOf: Data([0x3d]))
        }
        try handle.close()
    }

    @Test func aHostThatComputesWronglyIsNamedAndItsWorkDoneAgain() async throws {
        let probe = try RunningTessera(try onHost("probe", ["true"]), executable: "/usr/bin/unshare")
        guard await probe.exitCode() == 0 else { return }
        try LargeFamily.write(to: directory)
        try LargeFamily.write(to: directory, below: "bad/")
        try spoil("\(directory.path)/bad/b/model.safetensors")
        let cluster = try await Cluster(
            coordinator: ["--root", directory.path, "--output-root", directory.path, "--audit", "100%"])
        let workers = try ["good", "fair", "bad"].map { name in
            let root = name == "bad" ? "\(directory.path)/bad" : directory.path
            return try RunningTessera(
                onHost(
                    name,
                    [
                        Tessera.path, "worker", "--coordinator", cluster.jobs, "--name", "worker-\(name)", "--threads", "1",
                        "--root",
                        root, "--blocks", "return", "--pause-milliseconds", "100",
                    ]), executable: "/usr/bin/unshare")
        }
        try await cluster.waitForWorkers(3)
        let job = try RunningTessera(
            ["submit", "r.yml", "out", "--wait", "--coordinator", cluster.jobs, "--shard-size", "4MB"], in: directory.path)
        #expect(await job.exitCode() == 0, "\(job.errors)")
        let log = cluster.coordinator.errors
        #expect(log.contains("put aside") && log.contains("worker-bad") && log.contains("worker-good on good"), "\(log)")
        struct Worker: Decodable { let name, state: String; let putAside: String? }
        let listed = try await cluster.get("/api/v1/workers", as: [Worker].self)
        #expect(listed.first { $0.name == "worker-bad" }?.putAside?.contains("memory may be bad") == true, "\(listed)")
        #expect(listed.count == 3 && listed.allSatisfy { $0.name == "worker-bad" || $0.putAside == nil })
        let whole = try await Tessera.run(["run", "r.yml", "whole", "--shard-size", "4MB"], in: directory.path)
        #expect(whole.exitCode == 0, "\(whole.errors)")
        #expect(try outputFiles("\(directory.path)/out") == outputFiles("\(directory.path)/whole"))
        withExtendedLifetime(workers) {}
    }
}
