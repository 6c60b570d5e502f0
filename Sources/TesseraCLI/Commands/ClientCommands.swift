package import ArgumentParser
import Core
import Engine
import Protocol
import Synchronization

/// The address of the coordinator, and how to connect.
struct CoordinatorArguments: ParsableArguments {
    @Option(help: ArgumentHelp("The coordinator's job port.", valueName: "host:port"))
    var coordinator = Self.standard

    @Option(
        help: ArgumentHelp(
            "How long to wait for a connection, and for an answer; above 0, at most a day.", valueName: "seconds"),
        transform: { text throws(OutOfRange) in
            guard let seconds = Double(text), seconds > 0, seconds <= 86_400 else {
                throw OutOfRange("a number of seconds above 0, and at most a day")
            }
            return seconds
        })
    var timeout = Self.standardTimeout

    private static let standard = AddressArgument(HostPort(host: "127.0.0.1", port: 7070))
    private static let standardTimeout = 5.0

    @OptionGroup var credentials: CredentialArguments

    func validate() throws { try coordinator.check("--coordinator") }

    /// The options as a shell reads them, without those that have their defaults.
    var words: [String] {
        var words: [String] = []
        if coordinator != Self.standard { words += ["--coordinator", "\(coordinator)"] }
        if timeout != Self.standardTimeout { words += ["--timeout", Int(exactly: timeout).map { "\($0)" } ?? "\(timeout)"] }
        return (words + credentials.words).map(\.shellWord)
    }

    func address() throws -> CoordinatorAddress {
        CoordinatorAddress(
            try coordinator.address(), tls: try credentials.tls(), token: credentials.token, timeout: .seconds(timeout))
    }
}

package struct SubmitCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "submit", abstract: "Submit a job to a coordinator and print its id.",
        discussion:
            "OUT and relative paths in the recipe start at the working directory. OUT is created on the coordinator's host."
    )

    @OptionGroup var job: JobArguments
    @OptionGroup var target: CoordinatorArguments

    @Flag(help: "Wait for the job to end and show its progress.")
    var wait = false

    @Option(
        help: ArgumentHelp(
            "Recompute this share of the shards on another host, such as 5%. The default is the coordinator's choice.",
            valueName: "share"))
    var audit: Share?

    @Option(help: ArgumentHelp("What to call the job in status.", valueName: "name"))
    var name: String?

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let submission = try job.submission(audit: audit?.value, name: name)
        let (wait, json, style) = (wait, job.json, job.progress)
        let address = try target.address(), words = target.words, isAsked = Mutex(false)
        do {
            let status = try await JobFollower(style).run(at: address, named: words) { client, known in
                if let known { return wait ? known : nil }
                // A coordinator that stands still must not hold the command for as long as a plan may take.
                try await client.checkAnswers()
                isAsked.withLock { $0 = true }
                let submitted = try await client.submit(submission)
                isAsked.withLock { $0 = false }
                try Self.show(submitted, json: json, wait: wait)
                return wait ? submitted.job : nil
            }
            if let status { try JobOutcome(status).report(json: json) }
        } catch  where isAsked.withLock({ $0 }) && Self.leavesOpen(error) {
            Terminal.remark("the job may have been accepted; see: \((["tessera status"] + words).joined(separator: " "))")
            throw error
        }
    }

    /// Whether a submission that ended so may be a job all the same.
    private static func leavesOpen(_ error: any Error) -> Bool {
        error is CancellationError || (error as? TesseraError)?.code == .unreachable
    }

    private static func show(_ submitted: Submitted, json: Bool, wait: Bool) throws {
        Terminal.warn(submitted.warnings ?? [])
        for remark in submitted.remarks { Terminal.remark(remark) }
        // With both options, stdout is the finished job as one JSON object.
        if !json {
            print(submitted.job)
        } else if wait {
            Terminal.remark("job \(submitted.job)")
        } else {
            try printJSON(["job": "\(submitted.job)"])
        }
        try flushOutput()
    }
}

package struct WaitCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "wait", abstract: "Wait for a job to end and show its progress.",
        discussion: "The exit code is that of the job.")

    @Argument(help: "The job's id, or a unique prefix of it.")
    var job: String

    @OptionGroup var target: CoordinatorArguments

    @Option(help: ProgressStyle.help)
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as JSON.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let (job, json) = (job, json)
        let status = try await JobFollower(progress).run(at: try target.address(), named: target.words) { client, known in
            if let known { return known }
            return try await client.find(job)
        }
        if let status { try JobOutcome(status).report(json: json) }
    }
}

package struct CancelCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Cancel a job and delete its partial output.")

    @Argument(help: "The job's id, or a unique prefix of it.")
    var job: String

    @OptionGroup var target: CoordinatorArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        try await CoordinatorClient.connect(to: try target.address(), remark: Terminal.remark) { client in
            let id = try await client.find(job)
            guard case .cancelled = try await client.ask(.cancel(Cancel(job: id, reason: "cancelled by a client"))) else {
                throw TesseraError(.protocolMismatch, "the coordinator did not confirm the cancellation")
            }
            let state = try await client.summary(of: id).state
            guard state == .cancelled else {
                throw TesseraError(.usage, "the job \(id) has ended as '\(state.rawValue)' and cannot be cancelled")
            }
            print("cancelled \(id)")
        }
    }
}
