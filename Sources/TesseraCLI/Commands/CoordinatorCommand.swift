package import ArgumentParser
import Coordinator
import Core
import Engine
import FoundationEssentials
import Journal
import Logging
import Protocol
import ServiceLifecycle
import Synchronization
import UnixSignals
import Work

package struct CoordinatorCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "coordinator", abstract: "Accept jobs, lease their shards to workers and assemble the outputs.",
        discussion: """
            On SIGTERM, the coordinator accepts no more jobs and exits when all jobs have ended; on SIGINT, it exits at once. \
            With --state, unfinished jobs outlive it: the same command goes on with them. \
            A job port that other hosts can reach needs TLS with certificates or tokens, or --insecure.
            """)

    @Option(help: ArgumentHelp("The job port, for workers and clients.", valueName: "host:port"))
    var listen = AddressArgument(HostPort(host: "127.0.0.1", port: 7070))

    @Option(help: ArgumentHelp("The status port (HTTP).", valueName: "host:port"))
    var status = AddressArgument(HostPort(host: "127.0.0.1", port: 7071))

    @Option(
        help: ArgumentHelp("Another host name that clients may use for the status port; repeatable.", valueName: "name"))
    var statusHost: [String] = []

    @Option(
        help: ArgumentHelp(
            "A directory that inputs may be read from; repeatable. On loopback, the default is any directory.", valueName: "dir"),
        completion: .directory)
    var root: [String] = []

    @Option(help: ArgumentHelp("The directory that all outputs are written under.", valueName: "dir"), completion: .directory)
    var outputRoot: String?

    @Option(
        help: ArgumentHelp(
            "A directory that keeps the jobs, so that they outlive the coordinator. It is created if necessary.",
            valueName: "dir"), completion: .directory)
    var state: String?

    @Option(
        help: ArgumentHelp(
            """
            Seconds until a lease that is not renewed goes to another worker; more than twice --heartbeat-seconds, at most a year.
            """,
            valueName: "seconds"))
    var leaseSeconds = 30.0

    @Option(help: ArgumentHelp("Seconds between a worker's heartbeats; above 0, at most a day.", valueName: "seconds"))
    var heartbeatSeconds = 5.0

    @Option(
        help: ArgumentHelp(
            "Recompute this share of each job's shards on another host, such as 5%, to find hosts that compute wrongly.",
            valueName: "share"))
    var audit = Share(value: 0)

    @Flag(
        help: """
            Listen beyond this machine without TLS. Anyone who can reach the ports may submit jobs and read all inputs, and \
            nothing is encrypted.
            """)
    var insecure = false

    @OptionGroup var port: JobPortArguments

    @OptionGroup var signing: SigningArguments

    @OptionGroup var logging: LogArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func validate() throws {
        try listen.check("--listen", ports: Self.ports)
        try status.check("--status", ports: Self.ports)
        guard leaseSeconds > 0, heartbeatSeconds > 0, heartbeatSeconds * 2 < leaseSeconds else {
            throw ValidationError("--lease-seconds must be more than twice --heartbeat-seconds, and both must be positive.")
        }
        // Peers refuse more.
        guard heartbeatSeconds * 1000 <= Double(Limits.heartbeatMilliseconds),
            leaseSeconds * 1000 <= Double(Limits.leaseMilliseconds)
        else { throw ValidationError("--heartbeat-seconds must be at most a day, --lease-seconds at most a year.") }
    }

    /// The system chooses a port where 0 is given.
    private static let ports = 0...65535

    package func run() async throws {
        let listen = try listen.address(ports: Self.ports), status = try status.address(ports: Self.ports)
        let security = try port.security()
        try checkExposure(listen, status)
        let log = logging.logger("tessera.coordinator")
        let systemd = try ServiceManager()
        var policy = SchedulerPolicy()
        policy.lease = .seconds(leaseSeconds)
        let journal = try state.map { path throws(TesseraError) in
            try SQLiteJournal(directory: path, build: tesseraVersion, now: TimeSource.system.wallClock())
        }
        var settings = JobManager.Settings(
            inputRoots: root.isEmpty ? .wholeMachine : try Roots(root), outputRoot: try outputRoot.map(canonicalDirectory),
            policy: policy, build: tesseraVersion, incarnation: journal?.incarnation ?? .random(in: 1...UInt32.max))
        settings.signingKey = try signing.key()
        settings.auditShare = audit.value
        settings.digests = InputDigests(
            directories: (root.isEmpty ? [] : settings.inputRoots.directories) + [state].compactMap(\.self))
        let manager = JobManager(settings: settings, log: log, journal: journal ?? NoJournal())
        systemd?.tick("reads the journal")
        try await manager.list()
        let ready = ReadyLine(log: log, about: about) { systemd?.isReady() }
        defer { if ready.wasReady { log.info("coordinator ended") } }
        let server = JobServer(
            manager: manager, settings: settings, address: listen, heartbeat: .seconds(heartbeatSeconds), security: security,
            descriptors: raiseDescriptorLimit(), log: log
        ) {
            ready.jobs(at: $0)
        }
        // On loopback the status port stays open to this machine's users and tools.
        let statusPort = try StatusPort.service(
            manager: manager, address: status, hosts: statusHost + [ProcessInfo.processInfo.hostName],
            security: status.isLoopback ? .open : security, log: log
        ) { ready.status(at: $0, isEncrypted: !status.isLoopback && security.tls != nil) }
        // Services start in this order and shut down in reverse, so that the status port shows the others draining.
        try await ServiceGroup(
            configuration: .init(
                services: [
                    .init(service: statusPort, successTerminationBehavior: .gracefullyShutdownGroup),
                    .init(
                        service: JobManagerService(manager: manager, systemd: systemd),
                        successTerminationBehavior: .gracefullyShutdownGroup),
                    .init(service: server, successTerminationBehavior: .gracefullyShutdownGroup),
                ],
                gracefulShutdownSignals: [.sigterm], cancellationSignals: [.sigint], logger: quietLog)
        ).run()
    }

    /// What the log says of a coordinator when it is ready.
    private var about: Logger.Metadata {
        [
            "version": "\(tesseraVersion)", "roots": "\(root.isEmpty ? "any" : root.joined(separator: ":"))",
            "output_root": "\(outputRoot ?? "any")", "state": "\(state ?? "none")",
            "security": "\(port.own.certificate == nil ? "none" : port.authority == nil ? "tokens" : "certificates")",
        ]
    }

    /// Beyond loopback, every permission must be given explicitly.
    private func checkExposure(_ listen: HostPort, _ status: HostPort) throws {
        if !insecure {
            if !listen.isLoopback, port.own.certificate == nil {
                throw TesseraError(
                    .notAllowed, "listening on \(listen) would let every host that can reach it submit jobs, unencrypted",
                    advice: "use TLS (--tls-cert, with --tls-ca or --token; Deploy/tls makes certificates), listen on 127.0.0.1, "
                        + "or add --insecure on a trusted network")
            }
            if !status.isLoopback, port.own.certificate == nil {
                throw TesseraError(
                    .notAllowed,
                    "the status port \(status) would show the jobs and the paths of their files to every host that "
                        + "can reach it",
                    advice: "use TLS (--tls-cert), keep the status port on 127.0.0.1, or add --insecure on a trusted network")
            }
        }
        guard !listen.isLoopback else { return }
        guard !root.isEmpty, outputRoot != nil else {
            throw TesseraError(.usage, "--root and --output-root are required to listen beyond this machine")
        }
    }
}

/// Runs the job manager as a service.
private struct JobManagerService: Service {
    let manager: JobManager
    let systemd: ServiceManager?

    package func run() async throws {
        await withTaskGroup { group in
            group.addTask { await manager.run { systemd?.tick($0.description) } }
            group.addTask { try? await gracefulShutdown() }
            await group.next()
            group.cancelAll()
        }
    }
}

/// Prints the addresses of both ports to stdout once they are open, and logs them. Scripts wait for this line.
private final class ReadyLine: Sendable {
    private let addresses = Mutex<(jobs: HostPort?, status: String?)>((nil, nil))
    private let log: Logger
    private let metadata: Logger.Metadata
    private let onReady: @Sendable () -> Void

    init(log: Logger, about metadata: Logger.Metadata, onReady: @escaping @Sendable () -> Void) {
        self.log = log
        self.metadata = metadata
        self.onReady = onReady
    }

    func jobs(at address: HostPort) { note { $0.jobs = address } }
    func status(at address: HostPort, isEncrypted: Bool) { note { $0.status = "\(isEncrypted ? "https" : "http")://\(address)" } }

    /// Whether both ports have been open.
    var wasReady: Bool { addresses.withLock { $0.jobs != nil && $0.status != nil } }

    private func note(_ change: (inout (jobs: HostPort?, status: String?)) -> Void) {
        let found = addresses.withLock { addresses in
            change(&addresses)
            return addresses
        }
        guard let jobs = found.jobs, let status = found.status else { return }
        log.info("coordinator ready", metadata: metadata.merging(["job_port": "\(jobs)", "status_port": "\(status)"]) { $1 })
        print("ready: jobs on \(jobs), status on \(status)")
        // It goes on, whether anybody reads this or not.
        try? flushOutput()
        onReady()
    }
}
