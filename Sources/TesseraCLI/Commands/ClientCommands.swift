package import ArgumentParser
import Core
import Engine
import Protocol

/// The address of the coordinator, and how to connect.
struct CoordinatorArguments: ParsableArguments {
    @Option(help: ArgumentHelp("The coordinator's job port.", valueName: "host:port"))
    var coordinator = HostPort(host: "127.0.0.1", port: 7070)

    @OptionGroup var credentials: CredentialArguments

    func address() throws -> CoordinatorAddress {
        CoordinatorAddress(coordinator, tls: try credentials.tls(), token: try credentials.accessToken())
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
            "Do this share of the shards again on another host, such as 5%. The default is the coordinator's choice.",
            valueName: "share"))
    var audit: Share?

    package init() {}

    package func run() async throws {
        let submission = try job.submission(audit: audit?.value)
        let (wait, json, style) = (wait, job.json, job.progress)
        let address = try target.address()
        try await cancelledBySignals {
            var job: JobID?
            // Asking again is safe: the same submission is the same job.
            let status = try await CoordinatorClient.reconnecting(to: address, remark: Terminal.remark) { client in
                if job == nil {
                    let submitted = try await client.submit(submission)
                    for remark in submitted.remarks { Terminal.remark(remark) }
                    job = submitted.job
                }
                guard wait, let job else { return JobStatus?.none }
                return try await Self.follow(job, style: style, &client)
            }
            if let status { try JobOutcome(status).report(json: json) } else if let job { print(job) }
        }
    }

    /// Shows progress until the job ends. If the wait is cancelled, the job continues.
    private static func follow(_ id: JobID, style: ProgressStyle, _ client: inout CoordinatorClient) async throws -> JobStatus {
        var display = ProgressDisplay(style)
        while true {
            let status = try await client.summary(of: id)
            display.show(status)
            if status.state.isEnd {
                display.finish()
                return status
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

package struct CancelCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Cancel a job and delete its partial output.")

    @Argument(help: "The job's id, or a unique prefix of it.")
    var job: String

    @OptionGroup var target: CoordinatorArguments

    package init() {}

    package func run() async throws {
        try await CoordinatorClient.connect(to: try target.address()) { client in
            let id = try await client.find(job)
            guard case .cancelled = try await client.ask(.cancel(Cancel(job: id, reason: "cancelled by a client"))) else {
                throw TesseraError(.protocolMismatch, "the coordinator did not confirm the cancellation")
            }
            print("cancelled \(id)")
        }
    }
}
