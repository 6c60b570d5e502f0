import Core
import Foundation
import Journal
import Logging
import NIOCore
import Protocol
import ServiceLifecycleTestKit
import TestSupport
import Transport
import Work

@testable import Coordinator
@testable import Engine
@testable import Worker

/// A coordinator, workers and clients: the product's own code in a world of simulated clocks, connections, disks and threads.
final class SimulatedCluster: @unchecked Sendable {
    /// Faults of the kind that the simulator is there to find. They sit in the doubles, not in the product.
    enum Mutation: String, CaseIterable {
        /// `sync` says that bytes are durable before they are.
        case commitBeforeDurable
        /// Every start of the coordinator has the same number.
        case epochWithoutIncarnation
        /// The journal says that it is written before it is.
        case ackBeforeJournal
        /// `sync` says nothing of what it could not write.
        case silentSync
    }

    let simulation: Simulation
    let network: SimulatedNetwork
    let disk: SimulatedDisk
    let journal: SimulatedJournal
    let history: History
    /// When faults end, and how long everything may take from then on.
    static let calm = Duration.seconds(120), patience = Duration.seconds(1200)
    let isCalm: Bool
    private(set) var coordinator: SimulatedProcess?
    private(set) var workers: [String: SimulatedWorker] = [:]
    private var clients: [SimulatedProcess] = []
    /// Clients that have not got their last answer, some of which are still to come.
    private var waitingClients = 0
    /// The share of every job's shards that is done again on another host.
    var audit: Double?
    /// The worker whose host has bad memory, and what share of its shards comes out wrong.
    var badHost: (name: String, wrongs: Double)?
    private var nextJob: UInt64 = 1
    private var nextConnection = 1
    private var nextInstance = 0
    private var isOver = false
    /// The files of each output, as they were published.
    private(set) var outputs: [String: [String: [UInt8]]] = [:]

    struct SimulatedWorker {
        let process: SimulatedProcess
        let runner: SimulatedRunner
    }

    /// - Parameters:
    ///   - reference: the files of each recipe's output.
    ///   - isCalm: whether nothing goes wrong.
    init(seed: UInt64, mutation: Mutation? = nil, reference: [[String: [UInt8]]]?, isCalm: Bool = false) {
        simulation = Simulation(seed: seed)
        network = SimulatedNetwork(simulation)
        disk = SimulatedDisk(simulation, syncsLate: mutation == .commitBeforeDurable, hidesFailures: mutation == .silentSync)
        journal = SimulatedJournal(
            simulation, writesLate: mutation == .ackBeforeJournal, countsStarts: mutation != .epochWithoutIncarnation)
        history = History(simulation, disk: disk, journal: journal, reference: reference)
        self.isCalm = isCalm
        simulation.whenIdle = { [network] in network.collect(hasRun: $0) }
        disk.whenPublished = { [self] output, files in
            outputs[output] = files
            history.published(output, files)
        }
        journal.whenRestarted = { [history] in history.restarted($0, losing: $1) }
        network.accept = { [self] in serve($0) }
    }

    // MARK: The coordinator

    private var roots: Roots { Roots(everythingIn: ReferenceWork.files) }
    private var manager: JobManager?

    func startCoordinator() {
        guard !isOver, coordinator == nil else { return }
        history.note("the coordinator starts", count: "starts")
        let process = SimulatedProcess("coordinator", in: simulation)
        coordinator = process
        process.whenDead = { [self] in
            if coordinator === process { (coordinator, self.manager, network.server) = (nil, nil, nil) }
            network.lost(process, isSilent: false)
            simulation.after(.seconds(simulation.draw(0.1...20))) { self.startCoordinator() }
        }
        let manager = JobManager(
            settings: JobManager.Settings(inputRoots: roots, build: "simulated", incarnation: journal.nextIncarnation()),
            log: .silent, time: process.time, outputs: disk.store(of: process), journal: journal.journal(of: process),
            pools: BlockingPools { BlockingPool(submit: process.pool(threads: $0)) }, executor: process,
            newID: { [self] in
                nextJob += 1
                return JobID(high: 1, low: nextJob)
            })
        self.manager = manager
        let events = manager.events.events()
        process.start { [history] in for await event in events { history.happened(event, at: process) } }
        process.start { [self] in
            do {
                try await manager.list()
            } catch {
                if process.isAlive { history.violate("the coordinator does not start: \(error)") }
            }
            if process.isAlive { network.server = process }
            await manager.run()
        }
    }

    private func serve(_ connection: Connection) {
        guard let process = coordinator, let manager else { return }
        nextConnection += 1
        let server = ServerConnection(
            connection: connection, number: nextConnection, manager: manager, inputs: FetchSource(roots: roots),
            settings: ServerConnection.Settings(build: "simulated", heartbeat: Limits.heartbeatInterval), time: process.time,
            log: .silent)
        process.start { await server.run() }
    }

    // MARK: Workers

    func startWorker(_ name: String) {
        guard !isOver, workers[name] == nil else { return }
        let process = SimulatedProcess(name, in: simulation)
        let runner = SimulatedRunner(
            process, disk: disk, history: history, path: simulation.pick(SimulatedRunner.Path.allCases),
            wrongs: badHost?.name == name ? badHost?.wrongs ?? 0 : 0)
        workers[name] = SimulatedWorker(process: process, runner: runner)
        history.starts(name)
        process.whenDead = { [self] in
            if workers[name]?.process === process { workers[name] = nil }
            network.lost(process, isSilent: simulation.chance(0.3))
            simulation.after(.seconds(simulation.draw(1...30))) { self.startWorker(name) }
        }
        var settings = WorkerSettings(
            coordinator: HostPort(host: "coordinator", port: 7070), roots: roots, name: name, build: "simulated",
            memory: WorkerMemory(total: 1 << 30, threads: simulation.draw(1..<4), isConnected: true))
        nextInstance += 1
        (settings.instance, settings.host) = ("\(nextInstance)", name)
        let service = WorkerService(
            settings: settings, time: process.time,
            connect: { [network] in try await network.dial(from: process, limits: .coordinator) }, runner: runner,
            random: { [simulation] in simulation.draw(0...0.999) }, log: .silent)
        if !isCalm, simulation.chance(0.3) { runner.fetches = service.fetches }
        process.start { [self] in
            do {
                try await testGracefulShutdown { trigger in
                    runner.drain = { trigger.triggerGracefulShutdown() }
                    try await service.run()
                }
            } catch {
                if process.isAlive { history.gaveUp(name, error) }
            }
            process.kill()
        }
    }

    // MARK: Clients

    /// A client submits a job at that moment and waits for its end, however often it has to ask.
    func addClient(
        after delay: Duration, recipe: Int, output: String, key: String? = nil, cancelsAfter: Duration? = nil
    ) {
        waitingClients += 1
        simulation.after(delay) { self.startClient(recipe, output, key, cancelsAfter) }
    }

    private func startClient(_ recipe: Int, _ output: String, _ key: String?, _ cancelsAfter: Duration?) {
        let process = SimulatedProcess("client \(clients.count)", in: simulation)
        clients.append(process)
        let submission = ReferenceWork.submission(recipe: recipe, output: output, key: key, audit: audit)
        history.submits(recipe: recipe, output: output)
        process.start { [self] in
            var job: JobID?
            while process.isAlive {
                do {
                    let status = try await ask(as: process, submission, cancelsAfter) { job = $0 }
                    history.answered(status.id, status.state, status.error)
                    break
                } catch let problems as Problems {
                    if let job { history.violate("the job \(job) is forgotten: \(problems.all[0].problem)") }
                    history.answered(nil, nil, problems.all.first)
                    break
                } catch {
                    // Nobody was there, or nobody any more.
                    try? await process.rest(.seconds(2))
                }
            }
            if process.isAlive { waitingClients -= 1 }
        }
    }

    private func ask(
        as process: SimulatedProcess, _ submission: Submit, _ cancelsAfter: Duration?, note: (JobID) -> Void
    ) async throws -> JobStatus {
        var known: JobID?
        return try await CoordinatorClient.reconnecting(
            to: CoordinatorAddress(HostPort(host: "coordinator", port: 7070)), time: process.time,
            dial: { [network] () async throws(TesseraError) -> Connection in
                try await network.dial(from: process, limits: .messages)
            },
            random: { [simulation] in simulation.draw(0...0.999) }, remark: { _ in }
        ) { client in
            let id: JobID
            if let known { id = known } else { id = try await client.submit(submission).job }
            known = id
            note(id)
            if let cancelsAfter {
                try await process.rest(cancelsAfter)
                // Refused when the output is about to appear.
                do { _ = try await client.ask(.cancel(Cancel(job: id, reason: "a user"))) } catch is Problems {}
            }
            while true {
                let status = try await client.summary(of: id)
                if status.state.isEnd { return status }
                try await process.rest(.seconds(2))
            }
        }
    }

    // MARK: Running

    /// - Returns: what broke a rule.
    func run() -> [String] {
        startCoordinator()
        if !isCalm { Weather(self).drawAudits() }
        for number in 1...(isCalm ? 2 : badHost == nil ? simulation.draw(2..<5) : simulation.draw(3..<6)) {
            startWorker("worker \(number)")
        }
        if isCalm {
            for recipe in ReferenceWork.recipes.indices { addClient(after: .zero, recipe: recipe, output: "/out \(recipe)") }
        } else {
            Weather(self).schedule()
        }
        expectOperator()
        let end = Self.calm + Self.patience
        while !isAtRest, simulation.now < end, history.violations.isEmpty, simulation.step() {}
        if history.violations.isEmpty, !isAtRest {
            history.violate(
                "no end: \(waitingClients) clients wait, \(journal.unfinished.count) jobs and \(disk.unfinished) are unfinished")
        }
        shutDown()
        if simulation.hasEscaped { history.violate("a task ran outside of the simulation") }
        return history.violations
    }

    /// A job that could not be taken up stays in the journal until the next start: somebody starts the coordinator again.
    private func expectOperator() {
        for minutes in 1...3 {
            simulation.after(Self.calm + .seconds(60 * minutes)) { [self] in
                if waitingClients == 0, !isAtRest { coordinator?.kill() }
            }
        }
    }

    /// Whether nobody waits and nothing is left over.
    private var isAtRest: Bool {
        waitingClients == 0 && coordinator != nil && journal.unfinished.isEmpty && disk.unfinished.isEmpty
    }

    private func shutDown() {
        isOver = true
        for process in clients + workers.values.map(\.process) { process.kill() }
        coordinator?.kill()
        // Whatever waits for time is abandoned; tasks come to their end at once.
        let now = simulation.now
        while simulation.now <= now, simulation.step() {}
        simulation.abandon()
        network.accept = { _ in }
        disk.whenPublished = { _, _ in }
        manager = nil
    }
}
