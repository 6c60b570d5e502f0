import Core
import Foundation
import Synchronization
import Testing

/// The coordinator, its workers and its clients in simulated worlds of faults, each of which follows from its seed.
///
/// `TESSERA_SEED=N` runs one world and prints what happened in it; `TESSERA_SEEDS=N` runs N new ones.
@Suite struct ClusterSimulationTests {
    private static let seed = number("TESSERA_SEED"), seeds = number("TESSERA_SEEDS")
    private static let isWhole = seed == nil && seeds == nil

    private static func number(_ variable: String) -> UInt64? {
        ProcessInfo.processInfo.environment[variable].flatMap { UInt64($0) }
    }

    /// The seeds of every run of the tests.
    private static let fixed: ClosedRange<UInt64> = 1...200

    // MARK: Worlds

    /// What the recipes make where nothing goes wrong.
    private static let reference: [[String: [UInt8]]] = {
        let cluster = SimulatedCluster(seed: 0, reference: nil, isCalm: true)
        let violations = cluster.run()
        guard violations.isEmpty else {
            Issue.record("a calm world breaks rules: \(violations)")
            return []
        }
        return ReferenceWork.recipes.indices.map { recipe in
            (cluster.outputs["/out \(recipe)"] ?? [:]).filter { $0.key != "tessera.report.json" }
        }
    }()

    private struct Run: Sendable {
        let seed: UInt64
        let violations: [String]
        let lines: [String]
        let counts: [String: Int]
    }

    private static func run(_ seed: UInt64, _ mutation: SimulatedCluster.Mutation?, isCalm: Bool) -> Run {
        let cluster = SimulatedCluster(seed: seed, mutation: mutation, reference: reference, isCalm: isCalm)
        if isCalm { (cluster.network.latency, cluster.network.loss) = (0.15, 0.05) }
        let violations = cluster.run()
        return Run(seed: seed, violations: violations, lines: cluster.history.lines, counts: cluster.history.counts)
    }

    /// Runs worlds on two threads of their own: a world may wait for the executor that computes the expected bytes.
    ///
    /// - Parameters:
    ///   - isCalm: whether nothing goes wrong but that bytes take up to 150 ms, and one packet of twenty is lost.
    ///   - stops: whether no further world is to be run after this one.
    private static func run(
        _ seeds: some Sequence<UInt64> & Sendable, _ mutation: SimulatedCluster.Mutation? = nil, isCalm: Bool = false,
        until stops: @escaping @Sendable (Run) -> Bool = { _ in false }
    ) async -> [Run] {
        let waiting = Mutex(Array(seeds.reversed())), finished = Mutex<[Run]>([])
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let left = Mutex(2)
            for _ in 0..<2 {
                let thread = Thread {
                    while let seed = waiting.withLock({ $0.popLast() }) {
                        let world = Self.run(seed, mutation, isCalm: isCalm)
                        finished.withLock { $0.append(world) }
                        if stops(world) { waiting.withLock { $0 = [] } }
                    }
                    let isLast = left.withLock { left in
                        left -= 1
                        return left == 0
                    }
                    if isLast { continuation.resume() }
                }
                thread.stackSize = 8 << 20
                thread.start()
            }
        }
        return finished.withLock { $0 }
    }

    private static func counts(_ runs: [Run]) -> [String: Int] {
        runs.reduce(into: [:]) { counts, run in counts.merge(run.counts) { $0 + $1 } }
    }

    private static func report(_ run: Run) {
        guard let violation = run.violations.first else { return }
        Issue.record(
            """
            seed \(run.seed): \(violation)
            \(run.lines.suffix(12).joined(separator: "\n"))
            run it again: TESSERA_SEED=\(run.seed) swift test --filter ClusterSimulation
            """)
    }

    // MARK: Tests

    /// Every job ends, done with the right bytes or with a reason; no committed shard is done again; nothing is left over.
    @Test(.enabled(if: isWhole)) func whateverHappensTheRulesHold() async {
        let runs = await Self.run(Self.fixed), counts = Self.counts(runs)
        runs.forEach(Self.report)
        // The worlds are hard enough, and not too hard.
        for event in [
            "kept", "stale", "revoked", "lost lease", "attempt failed", "cancelled", "refused", "paused", "resumed", "audited",
            "wrong", "put aside", "fetched", "left",
        ] {
            #expect(counts[event, default: 0] > 0, "nothing was '\(event)' in \(counts)")
        }
        #expect(counts["done", default: 0] > Self.fixed.count, "\(counts)")
    }

    @Test(.enabled(if: isWhole)) func worldsThatNobodyHasSeen() async {
        let first = UInt64.random(in: 1_000...1_000_000_000)
        print("new worlds: seeds \(first) to \(first + 19)")
        await Self.run(first...first + 19).forEach(Self.report)
    }

    @Test(.enabled(if: isWhole)) func theSameSeedGivesTheSameHistory() async {
        let runs = await Self.run([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
        for (seed, same) in Dictionary(grouping: runs, by: \.seed) {
            #expect(same.count == 2 && same.first?.lines == same.last?.lines, "seed \(seed)")
        }
        #expect(Set(runs.map(\.lines)).count == 6)
    }

    /// 300 ms there and back, and lost packets: nobody is taken for dead.
    @Test(.enabled(if: isWhole)) func aSlowNetworkLosesNobody() async {
        let runs = await Self.run(1...20, isCalm: true), counts = Self.counts(runs)
        runs.forEach(Self.report)
        #expect(counts["done"] == 20 * ReferenceWork.recipes.count && counts["lost lease"] == nil, "\(counts)")
        #expect(counts["attempt failed"] == nil, "\(counts)")
    }

    /// The worlds find each fault of the kind that they are there to find.
    @Test(.enabled(if: isWhole), arguments: SimulatedCluster.Mutation.allCases)
    func theWorldsFind(mutation: SimulatedCluster.Mutation) async {
        let runs = await Self.run(Self.fixed, mutation) { !$0.violations.isEmpty }
        #expect(runs.contains { !$0.violations.isEmpty }, "\(mutation) was not found in the seeds \(Self.fixed)")
    }

    /// 0.5 · (x + 2x) for x = 1 ... 8 in each of five tensors.
    @Test func theReferenceIsWhatTheRecipeSays() async throws {
        let reference = await withCheckedContinuation { (continuation: CheckedContinuation<[[String: [UInt8]]], Never>) in
            Thread { continuation.resume(returning: Self.reference) }.start()
        }
        let parts = try #require(reference.first).filter { $0.key.hasSuffix(".safetensors") }
        var values: [Float] = []
        for bytes in parts.values {
            let length = bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
            bytes[(8 + length)...].withUnsafeBytes { raw in
                for offset in stride(from: 0, to: raw.count, by: 4) {
                    values.append(raw.loadUnaligned(fromByteOffset: offset, as: Float.self))
                }
            }
        }
        #expect(parts.count > 1, "shards of several parts")
        #expect(values.sorted() == (1...8).flatMap { Array(repeating: 1.5 * Float($0), count: 5) })
    }

    @Test(.enabled(if: seed != nil)) func theSeedThatWasGiven() async {
        let runs = await Self.run([Self.seed ?? 0])
        print(runs.flatMap(\.lines).joined(separator: "\n"))
        runs.forEach(Self.report)
    }

    @Test(.enabled(if: seeds != nil)) func asManySeedsAsWanted() async {
        let first = UInt64.random(in: 1_000_000_000...1_000_000_000_000), count = Self.seeds ?? 0
        let start = ContinuousClock.now, runs = await Self.run(first..<first + count)
        runs.forEach(Self.report)
        print("\(count) worlds from seed \(first) in \(ContinuousClock.now - start)")
        print(Self.counts(runs).sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
    }
}
