import Core
import Glibc
import HeapModule
import TestSupport

/// Time and chance of a simulated world, and the order in which its tasks run.
///
/// A world belongs to one thread. Every task of every simulated process is queued here and runs to its next suspension before
/// another one begins; when none is left, time moves to the next event. So a run follows from its seed alone.
final class Simulation: @unchecked Sendable {
    private struct Event: Comparable {
        let at: Duration
        let number: Int
        let body: () -> Void

        static func == (left: Event, right: Event) -> Bool { left.number == right.number }
        static func < (left: Event, right: Event) -> Bool { (left.at, left.number) < (right.at, right.number) }
    }

    private(set) var now = Duration.zero
    private(set) var eventCount = 0
    /// Whether a task of the world was resumed by another thread: then the run is not worth anything.
    private(set) var hasEscaped = false
    /// Called whenever no task can run, with whether any has run since the last time.
    var whenIdle: (_ hasRun: Bool) -> Void = { _ in }
    private var random: SplitMix
    private var events: Heap<Event> = []
    private var ready: [(process: SimulatedProcess, job: UnownedJob)] = []
    private var next = 0
    private let thread = pthread_self()

    init(seed: UInt64) { random = SplitMix(seed: seed) }

    // MARK: Chance

    func chance(_ share: Double) -> Bool { Double.random(in: 0..<1, using: &random) < share }

    func draw(_ range: ClosedRange<Double>) -> Double { Double.random(in: range, using: &random) }

    func draw(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

    func pick<Element>(_ elements: [Element]) -> Element { elements[draw(0..<elements.count)] }

    /// Short most of the time, and now and then a hundred times as long.
    func delay(_ seconds: Double) -> Duration { .seconds(draw(0...seconds) * (chance(0.02) ? 100 : 1)) }

    // MARK: Time

    func after(_ delay: Duration, _ body: @escaping () -> Void) {
        eventCount += 1
        events.insert(Event(at: now + max(.zero, delay), number: eventCount, body: body))
    }

    fileprivate func enqueue(_ job: UnownedJob, of process: SimulatedProcess) {
        guard pthread_equal(thread, pthread_self()) != 0 else { return hasEscaped = true }
        ready.append((process, job))
    }

    /// Lets all tasks run, and then moves to the next event and takes it.
    ///
    /// - Returns: `false` when nothing is left to happen.
    func step() -> Bool {
        settle()
        guard let event = events.popMin() else { return false }
        now = event.at
        event.body()
        settle()
        return true
    }

    /// Forgets what has not happened.
    func abandon() {
        events = []
        whenIdle = { _ in }
    }

    private func settle() {
        repeat {
            while next < ready.count {
                let (process, job) = ready[next]
                next += 1
                process.run(job)
            }
            let hasRun = !ready.isEmpty
            ready.removeAll(keepingCapacity: true)
            next = 0
            whenIdle(hasRun)
        } while !ready.isEmpty
    }
}

/// A process on a host of its own: tasks, clocks, and threads for calls that block. It can be frozen and killed.
final class SimulatedProcess: TaskExecutor, @unchecked Sendable {
    let name: String
    let simulation: Simulation
    /// `false` from the moment at which the process ends: whatever its tasks do from then on must have no effect outside.
    private(set) var isAlive = true
    private(set) var isFrozen = false
    /// How likely the process ends at each point where it touches a disk.
    var crashProbability = 0.0
    /// How much longer than usual a blocking call takes.
    var stall = Duration.zero
    /// The wall clock's error.
    var wallClockError = 0.0
    /// Called once when the process has ended.
    var whenDead: () -> Void = {}
    private var held: [() -> Void] = []
    private var tasks: [Task<Void, Never>] = []
    private var sleepers: [Int: CheckedContinuation<Void, any Error>] = [:]
    private var calls: [Int: @Sendable (Bool) -> Void] = [:]
    private var nextNumber = 0
    private let clockOrigin: Duration
    private let clockRate: Double
    /// Sleeping tasks wake at multiples of this: on a busy host it is long.
    private let timerSlack: Duration

    static let dead = TesseraError(.cancelled, "the process has ended")

    init(_ name: String, in simulation: Simulation) {
        self.name = name
        self.simulation = simulation
        clockOrigin = .seconds(simulation.draw(0...1e6))
        clockRate = simulation.draw(0.995...1.005)
        timerSlack = .milliseconds(simulation.pick([500, 1000]))
    }

    // MARK: Tasks

    func enqueue(_ job: consuming ExecutorJob) { simulation.enqueue(UnownedJob(job), of: self) }

    fileprivate func run(_ job: UnownedJob) { whenAwake { job.runSynchronously(on: self.asUnownedTaskExecutor()) } }

    func start(_ body: @escaping @Sendable () async -> Void) {
        tasks.append(Task.detached(executorPreference: self, operation: body))
    }

    private func whenAwake(_ body: @escaping () -> Void) {
        if isFrozen { held.append(body) } else { body() }
    }

    // MARK: Time

    var localNow: Duration { clockOrigin + simulation.now * clockRate }

    var time: TimeSource {
        TimeSource(
            now: { self.localNow },
            // Seconds since 1970 at the beginning of the world.
            wallClock: { 1.7e9 + self.simulation.now / .seconds(1) + self.wallClockError }, sleep: { try await self.sleep($0) })
    }

    private func sleep(_ duration: Duration) async throws {
        nextNumber += 1
        let number = nextNumber
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                // A process that has just ended may not notice: tasks that sleep again and again would never come to rest.
                guard !Task.isCancelled else { return continuation.resume(throwing: CancellationError()) }
                sleepers[number] = continuation
                let slack = timerSlack / .seconds(1), end = (simulation.now + duration / clockRate) / .seconds(1)
                simulation.after(Duration.seconds((end / slack).rounded(.up) * slack) - simulation.now) { [self] in
                    sleepers.removeValue(forKey: number)?.resume()
                }
            }
        } onCancel: {
            sleepers.removeValue(forKey: number)?.resume(throwing: CancellationError())
        }
    }

    /// - Throws: `CancellationError` when the task is cancelled or the process ends.
    func rest(_ duration: Duration) async throws { try await sleep(duration) }

    // MARK: Blocking calls

    private final class Lanes: @unchecked Sendable {
        var busyUntil: [Duration]

        init(_ count: Int) { busyUntil = Array(repeating: .zero, count: count) }
    }

    /// Each call takes its time and then effect, and its caller learns of that in the same moment or never.
    func pool(threads: Int) -> BlockingCalls {
        let lanes = Lanes(threads)
        return { [self] call in
            guard isAlive else { return call(false) }
            nextNumber += 1
            let number = nextNumber
            calls[number] = call
            let lane = lanes.busyUntil.indices.min { lanes.busyUntil[$0] < lanes.busyUntil[$1] } ?? 0
            let end = max(simulation.now, lanes.busyUntil[lane]) + simulation.delay(0.02) + stall
            lanes.busyUntil[lane] = end
            simulation.after(end - simulation.now) { [self] in whenAwake { self.calls.removeValue(forKey: number)?(true) } }
        }
    }

    typealias BlockingCalls = @Sendable (@escaping @Sendable (Bool) -> Void) -> Void

    // MARK: Ends

    /// A place where the process may end, before or after something that a disk remembers.
    func crashPoint() throws(TesseraError) {
        if isAlive, crashProbability > 0, simulation.chance(crashProbability) { kill() }
        guard isAlive else { throw Self.dead }
    }

    /// Ends the process. What its tasks still do while they come to their end has no effect.
    func kill() {
        guard isAlive else { return }
        isAlive = false
        // Not at once: the caller may be one of its own calls.
        simulation.after(.zero) { [self] in bury() }
    }

    private func bury() {
        thaw()
        whenDead()
        whenDead = {}
        for task in tasks { task.cancel() }
        for number in sleepers.keys.sorted() { sleepers.removeValue(forKey: number)?.resume(throwing: CancellationError()) }
        for number in calls.keys.sorted() { calls.removeValue(forKey: number)?(false) }
    }

    func freeze() { isFrozen = true }

    func thaw() {
        guard isFrozen else { return }
        isFrozen = false
        let bodies = held
        held = []
        for body in bodies { body() }
    }
}
