package import ArgumentParser
import Core
import Engine
import Logging
import Operators
import Protocol
import ServiceLifecycle
import UnixSignals
import Work
import Worker

package struct WorkerCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "worker", abstract: "Process shards for a coordinator.",
        discussion: """
            Inputs are read from the roots; missing files are fetched from the coordinator. If this host can access the output, \
            blocks are written to it directly, otherwise they are sent to the coordinator. On SIGTERM, the worker finishes its \
            shards and exits; on SIGINT, it exits at once.
            """)

    @Option(help: ArgumentHelp("The coordinator's job port.", valueName: "host:port"))
    var coordinator: AddressArgument

    @Option(
        help: ArgumentHelp("A directory that inputs are read from; repeatable. The default is any directory.", valueName: "dir"),
        completion: .directory)
    var root: [String] = []

    @Option(
        help: ArgumentHelp(
            "The path of the coordinator's output root on this host; nothing outside it is written.", valueName: "dir"),
        completion: .directory)
    var outputRoot: String?

    @Option(
        help: ArgumentHelp(
            "How blocks reach the output: direct, return (through the coordinator), or auto.", valueName: "how"))
    var blocks = LocalOutputs.Mode.auto

    @Option(help: ArgumentHelp("The name shown in status and logs.", valueName: "name"))
    var name = defaultName()

    @Option(help: ArgumentHelp("When to compress blocks with LZ4.", valueName: "when"))
    var pack = WorkerSettings.Packing.auto

    @Option(name: .customLong("pause-milliseconds"), help: ArgumentHelp("Wait before each shard.", visibility: .hidden))
    var pauseMilliseconds = 0

    @Option(help: ArgumentHelp("Shards of a connection before the first such pause.", visibility: .hidden))
    var pauseAfter = 0

    @OptionGroup var credentials: CredentialArguments
    @OptionGroup var machine: MachineArguments
    @OptionGroup var logging: LogArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func validate() throws { try coordinator.check("--coordinator") }

    package func run() async throws {
        let coordinator = try coordinator.address()
        let memory = WorkerMemory(total: machine.memory.bytes, threads: machine.threads, isConnected: true)
        guard memory.tensors > 0 else {
            throw TesseraError(
                .usage,
                "\(Quantity.bytes(memory.total)) of memory is not enough for the buffers of \(Quantity.threads(memory.threads))",
                advice: WorkerMemory.options(for: MemoryNeed(), threads: memory.threads, isConnected: true)
                    .map { "start it with \($0)" })
        }
        var settings = WorkerSettings(
            coordinator: coordinator, roots: root.isEmpty ? .wholeMachine : try Roots(root), name: name, build: tesseraVersion,
            memory: memory)
        // Inputs stay open, and models have many parts.
        _ = raiseDescriptorLimit()
        settings.tls = try credentials.tls()
        settings.token = credentials.token
        settings.packing = pack
        settings.digests = root.isEmpty ? cachedDigests() : InputDigests(directories: settings.roots.directories)
        settings.outputs = LocalOutputs(mode: blocks, root: try outputRoot.map(canonicalDirectory))
        settings.pause = WorkerSettings.Pause(length: .milliseconds(pauseMilliseconds), after: pauseAfter)
        let log = logging.logger("tessera.worker", ["worker": "\(name)"])
        log.info(
            "worker started",
            metadata: [
                "version": "\(tesseraVersion)", "coordinator": "\(coordinator)", "threads": .stringConvertible(memory.threads),
                "memory": .stringConvertible(memory.total), "roots": "\(root.isEmpty ? "any" : root.joined(separator: ":"))",
            ])
        let systemd = try ServiceManager()
        let service = WorkerService(settings: settings, onTick: { systemd?.tick($0.status(of: coordinator)) }, log: log)
        systemd?.isReady()
        try await ServiceGroup(
            configuration: .init(
                services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)],
                gracefulShutdownSignals: [.sigterm], cancellationSignals: [.sigint], logger: quietLog)
        ).run()
    }
}

extension WorkerSettings.Packing: ExpressibleByArgument {}
extension LocalOutputs.Mode: ExpressibleByArgument {}

extension WorkerActivity {
    fileprivate func status(of coordinator: HostPort) -> String {
        switch self {
        case .connecting: "looks for the coordinator \(coordinator)"
        case .working(let shards): "works for \(coordinator): \(shards) shards"
        }
    }
}
