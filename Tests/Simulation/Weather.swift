import Core
import NIOCore
import Protocol

/// What goes wrong in a run, and when: all drawn before the run begins, except for its victims.
struct Weather {
    private let cluster: SimulatedCluster
    private let simulation: Simulation
    private let network: SimulatedNetwork

    init(_ cluster: SimulatedCluster) {
        self.cluster = cluster
        simulation = cluster.simulation
        network = cluster.network
    }

    private enum Fault: CaseIterable {
        case killCoordinator, loseCoordinatorsPower, crashSomewhere
        case killWorker, crashWorkers, drainWorker
        case freezeCoordinator, freezeWorker
        case partition, oneWayPartition, swizzle, damage, slowNetwork
        case slowWorker, failingWorker, slowDisk
        case fullDisk, failingSync, failingJournal, lyingJournal
        case clockJump, stranger
    }

    /// Faults that may end a job, so that most runs have none.
    private static let harsh: Set<Fault> = [.failingWorker]

    /// Jobs of some worlds are audited, and of some of these a host has bad memory.
    func drawAudits() {
        guard simulation.chance(0.2) else { return }
        (cluster.audit, cluster.history.hasAudits) = (1, true)
        guard simulation.chance(0.6) else { return }
        cluster.badHost = ("worker \(simulation.draw(1..<4))", simulation.draw(0.1...1))
        cluster.history.note("the host of \(cluster.badHost?.name ?? "") has bad memory", count: "bad host")
        cluster.history.badHost = cluster.badHost?.name
    }

    func schedule() {
        jobs()
        let kinds = Fault.allCases.filter { !Self.harsh.contains($0) || simulation.chance(0.15) }
        for _ in 0..<simulation.draw(1..<10) {
            let fault = simulation.pick(kinds), left = SimulatedCluster.calm / .seconds(1)
            let moment = simulation.draw(0...left * 0.9)
            let lasts = Duration.seconds(min(left - moment, simulation.draw(0.5...60)))
            simulation.after(.seconds(moment)) {
                cluster.history.note("weather: \(fault) for \(lasts)", count: "\(fault)")
                strike(fault, for: lasts)
            }
        }
    }

    private func jobs() {
        for number in 0..<simulation.draw(1..<4) {
            let recipe = simulation.draw(0..<ReferenceWork.recipes.count)
            let key = simulation.chance(0.3) ? "key \(number)" : nil
            let cancels = simulation.chance(0.1) ? Duration.seconds(simulation.draw(0...60)) : nil
            let moment = Duration.seconds(simulation.draw(0...60)), output = "/out \(number)"
            cluster.addClient(after: moment, recipe: recipe, output: output, key: key, cancelsAfter: cancels)
            // The same job twice, or another one for the same output.
            guard simulation.chance(0.3) else { continue }
            let second = simulation.chance(0.7) ? recipe : simulation.draw(0..<ReferenceWork.recipes.count)
            cluster.addClient(
                after: moment + .seconds(simulation.draw(0...20)), recipe: second, output: output,
                key: second == recipe ? key : nil)
        }
    }

    // MARK: Faults

    private func strike(_ fault: Fault, for duration: Duration) {
        switch fault {
        case .killCoordinator: cluster.coordinator?.kill()
        case .loseCoordinatorsPower:
            cluster.coordinator?.kill()
            cluster.disk.losePower()
        case .crashSomewhere: crashSomewhere(cluster.coordinator, 0.05, for: duration)
        case .killWorker: worker?.process.kill()
        case .crashWorkers: for worker in sortedWorkers { crashSomewhere(worker.process, 0.1, for: duration) }
        case .drainWorker: worker?.runner.drain()
        case .freezeCoordinator: freeze(cluster.coordinator, for: duration)
        case .freezeWorker: freeze(worker?.process, for: duration)
        case .partition, .oneWayPartition, .swizzle, .damage, .slowNetwork: strikeNetwork(fault, for: duration)
        case .slowWorker: change(worker, \.pace, to: 60, for: duration)
        case .failingWorker: change(worker, \.failures, to: 0.5, for: duration)
        case .slowDisk: stall(cluster.coordinator, .seconds(simulation.draw(0.5...30)), for: duration)
        case .fullDisk: cluster.disk.fill(for: duration)
        case .failingSync: cluster.disk.failSyncs(for: duration)
        case .failingJournal: cluster.journal.fail(.fails, for: duration)
        case .lyingJournal: cluster.journal.fail(.lies, for: duration)
        case .clockJump:
            cluster.coordinator?.wallClockError += simulation.draw(-86_400...86_400)
            for worker in sortedWorkers { worker.process.wallClockError += simulation.draw(-86_400...86_400) }
        case .stranger: sendStranger()
        }
    }

    private var sortedWorkers: [SimulatedCluster.SimulatedWorker] {
        cluster.workers.sorted { $0.key < $1.key }.map(\.value)
    }

    private var worker: SimulatedCluster.SimulatedWorker? {
        sortedWorkers.isEmpty ? nil : simulation.pick(sortedWorkers)
    }

    private func crashSomewhere(_ process: SimulatedProcess?, _ share: Double, for duration: Duration) {
        process?.crashProbability = share
        simulation.after(duration) { process?.crashProbability = 0 }
    }

    private func freeze(_ process: SimulatedProcess?, for duration: Duration) {
        process?.freeze()
        simulation.after(duration) { process?.thaw() }
    }

    private func stall(_ process: SimulatedProcess?, _ pause: Duration, for duration: Duration) {
        process?.stall = pause
        simulation.after(duration) { process?.stall = .zero }
    }

    private func change(
        _ worker: SimulatedCluster.SimulatedWorker?, _ number: ReferenceWritableKeyPath<SimulatedRunner, Double>,
        to value: Double, for duration: Duration
    ) {
        guard let runner = worker?.runner else { return }
        let before = runner[keyPath: number]
        runner[keyPath: number] = value
        simulation.after(duration) { runner[keyPath: number] = before }
    }

    // MARK: The network

    private func strikeNetwork(_ fault: Fault, for duration: Duration) {
        let names = sortedWorkers.map(\.process.name)
        switch fault {
        case .partition, .oneWayPartition:
            guard !names.isEmpty else { return }
            let name = simulation.pick(names), inwards = simulation.chance(0.5)
            if fault == .partition || inwards { network.block(from: name, to: "coordinator", for: duration) }
            if fault == .partition || !inwards { network.block(from: "coordinator", to: name, for: duration) }
        case .swizzle:
            // One after the other goes silent, and they come back in another order.
            for name in names where simulation.chance(0.7) {
                simulation.after(duration * simulation.draw(0...0.4)) {
                    let length = duration * simulation.draw(0.2...0.6)
                    network.block(from: name, to: "coordinator", for: length)
                    network.block(from: "coordinator", to: name, for: length)
                }
            }
        case .damage:
            for pause in stride(from: 0, to: duration / .seconds(1), by: 5) {
                simulation.after(.seconds(pause)) { network.damage(simulation.pick(SimulatedNetwork.Damage.allCases)) }
            }
        default:
            let before = (network.latency, network.loss)
            (network.latency, network.loss) = (0.6, 0.3)
            simulation.after(duration) { (network.latency, network.loss) = before }
        }
    }

    /// Another version, other software, or bytes that were heard before.
    private func sendStranger() {
        if !network.recordings.isEmpty, simulation.chance(0.6) {
            return network.sendAsStranger(simulation.pick(network.recordings))
        }
        var hello = Hello(role: .worker, build: "other", name: "stranger", threads: 4, memory: 1 << 30)
        if simulation.chance(0.5) {
            (hello.oldestVersion, hello.newestVersion) = (7, 9)
        } else {
            hello.numericsVersion += 1
        }
        var encoder = FrameEncoder()
        guard simulation.chance(0.7), let frame = try? Message.hello(hello).frame() else {
            return network.sendAsStranger([ByteBuffer(string: "GET / HTTP/1.1\r\nHost: coordinator\r\n\r\n")])
        }
        network.sendAsStranger([encoder.encodeHeader(of: frame), frame.body])
    }
}
