import Core
import Protocol
import TestSupport
import Testing
import Work

@testable import Coordinator

@Suite struct MetricsTests {
    private static let id = JobID(high: 1, low: 1)
    private static let worker = WorkerReference(id: 7, name: "w", address: "h")

    private static func attempt(_ shard: Int, _ epoch: UInt64 = 1) -> Attempt {
        Attempt(job: id, shard: shard, epoch: epoch, incarnation: 0)
    }

    @Test func histogramsCountUpToEachBound() {
        var histogram = Histogram(bounds: [1, 2, 5])
        for value in [0.5, 1, 1.5, 5, 6, 100] { histogram.observe(value) }
        #expect(histogram.cumulative == [2, 3, 4] && histogram.count == 6 && histogram.sum == 114)
        var text = MetricsText()
        text.add("x_seconds", "Time.", histogram)
        #expect(
            text.text == """
                # HELP x_seconds Time.
                # TYPE x_seconds histogram
                x_seconds_bucket{le="1"} 2
                x_seconds_bucket{le="2"} 3
                x_seconds_bucket{le="5"} 4
                x_seconds_bucket{le="+Inf"} 6
                x_seconds_sum 114
                x_seconds_count 6

                """)
    }

    @Test func labelsAndHelpAreEscaped() {
        var text = MetricsText()
        text.add("x", .gauge, "a\\b\nc\"", by: "l", [("\"v\\\n", 1.5)])
        #expect(text.text == "# HELP x a\\\\b\\nc\"\n# TYPE x gauge\nx{l=\"\\\"v\\\\\\n\"} 1.5\n")
    }

    @Test func eventsAreCounted() {
        var counters = ClusterCounters()
        counters.apply(.added(Self.id, output: "/o", owner: "o"), at: .zero)
        counters.apply(.leased(Self.attempt(0), Self.worker), at: .seconds(1))
        counters.apply(.failed(Self.attempt(0), Self.worker, TesseraError(.io, "x")), at: .seconds(2))
        counters.apply(.leased(Self.attempt(0, 2), Self.worker), at: .seconds(3))
        counters.apply(.committed(Self.attempt(0, 2), Self.worker, byteCount: 10, .direct), at: .seconds(5))
        counters.apply(.leased(Self.attempt(1), Self.worker), at: .seconds(5))
        counters.apply(.revoked(Self.attempt(1), Self.worker, reason: "x"), at: .seconds(6))
        counters.apply(.paused(Self.id, TesseraError(.io, "x")), at: .seconds(6))
        counters.apply(.ended(Self.id, .failed, nil), at: .seconds(7))
        #expect(counters.jobsAdded == 1 && counters.jobsEnded == [.failed: 1] && counters.pauses == 1)
        #expect(counters.leases == 3 && counters.retries == 1 && counters.revoked == 1 && counters.failures == [.io: 1])
        #expect(counters.committed == [.direct: 1] && counters.bytesCommitted == [.direct: 10])
        #expect(counters.shardSeconds.count == 1 && counters.shardSeconds.sum == 2)
    }

    /// What a process has under its name does not shift the fields.
    @Test func usageIsReadBehindTheName() throws {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1000 8192 3 18446744073709551615 1"
        let usage = try #require(
            ProcessUsage(
                stat: stat, system: "cpu 1 2\nbtime 1700000000\n", openDescriptors: 5, descriptorLimit: 9, ticksPerSecond: 100,
                pageSize: 4096))
        #expect(usage.cpuSeconds == 3 && usage.virtualMemory == 8192 && usage.residentMemory == 3 * 4096)
        #expect(usage.startedAt == 1_700_000_010 && usage.openDescriptors == 5 && usage.descriptorLimit == 9)
        #expect(
            ProcessUsage(
                stat: "7 (a", system: "", openDescriptors: 0, descriptorLimit: 0, ticksPerSecond: 100, pageSize: 1) == nil)
        #expect(ProcessUsage.current().map { $0.residentMemory > 1 << 20 && $0.startedAt > 1e9 } == true)
    }

    /// As many series for many jobs and workers as for none.
    @Test func theSeriesAreBounded() async throws {
        let jobs = try TestJobs()
        let manager = JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "1.2\"3", incarnation: 1), log: .silent,
            outputs: MemoryOutputStore())
        let before = await manager.metrics().text(process: nil, eventReaders: 0)
        for number in 0..<20 {
            _ = try await manager.submit(jobs.submission(output: "/out\(number)"))
            _ = await manager.attach(.test("w\(number)")) { _ in }
        }
        let after = await manager.metrics().text(process: nil, eventReaders: 3)
        #expect(after.split(separator: "\n").count == before.split(separator: "\n").count)
        #expect(after.contains("tessera_build_info{version=\"1.2\\\"3\"} 1\n"))
        // Forty slots for jobs of three shards.
        #expect(after.contains("tessera_jobs{state=\"running\"} 14\n") && after.contains("tessera_jobs{state=\"queued\"} 6\n"))
        #expect(after.contains("tessera_jobs{state=\"waiting\"} 0\n") && after.contains("tessera_event_readers 3\n"))
        #expect(after.contains("tessera_workers{state=\"busy\"} 20\n") && after.contains("tessera_jobs_added_total 20\n"))
        #expect(after.contains("tessera_shards{state=\"leased\"} 40\n") && after.contains("tessera_leases_total 40\n"))
        for line in after.split(separator: "\n") where line.hasPrefix("# TYPE") {
            #expect(line.hasSuffix("counter") == line.contains("_total "), "\(line)")
        }
    }
}
