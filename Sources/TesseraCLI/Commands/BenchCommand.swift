package import ArgumentParser
import Coordinator
import Core
import Glibc

/// `tessera bench`: what a coordinator's decisions cost in a cluster that is not there.
package struct BenchCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure what a coordinator's decisions cost for a large cluster and a large job.",
        discussion: """
            Simulates the workers and runs the real scheduler and the real counters. Plans, messages and disks are not part of \
            the figures.
            """,
        shouldDisplay: false)

    @Option(help: "Simulated workers, of 8 threads each.")
    var workers = 1000

    @Option(help: "Shards of the simulated job.")
    var shards = 1_000_000

    package init() {}

    package func validate() throws {
        guard (1...100_000).contains(workers), (1...10_000_000).contains(shards) else {
            throw ValidationError("give 1 to 100000 workers and 1 to 10000000 shards")
        }
    }

    package func run() throws {
        let time = TimeSource.system, before = Self.residentBytes, start = time.now()
        var load = CoordinatorLoad(workers: workers, shards: shards)
        let added = time.now(), ready = Self.residentBytes
        load.run()
        let end = time.now()
        let events = Double(load.shardEvents)
        print("\(workers) workers, \(shards) shards, \(load.shardEvents) shard events")
        print("adding the job     \(Self.rounded((added - start) / .microseconds(1) / Double(shards))) µs per shard")
        print("working on it      \(Self.rounded((end - added) / .microseconds(1) / events)) µs per shard event")
        print("                   \(Self.rounded((end - added) / .microseconds(1) / Double(shards))) µs per shard")
        print("memory             \(max(0, ready - before) / shards) bytes per shard, ready to begin")
        print("                   \(max(0, Self.residentBytes - before) / shards) bytes per shard, at the end")
    }

    private static func rounded(_ number: Double) -> Double { (number * 100).rounded() / 100 }

    /// Bytes of memory that the process has now.
    private static var residentBytes: Int {
        let descriptor = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return 0 }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = read(descriptor, &bytes, bytes.count)
        let fields = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }
}
