package import Core
package import Protocol
import Transport

/// A client's connection: asks one thing at a time.
package struct CoordinatorClient {
    private let connection: Connection
    private var frames: FrameStream.Iterator
    /// Whether the coordinator has not answered yet.
    private var isGreeting = true

    /// Connects, and calls `body` with the connection.
    ///
    /// - Throws: `unreachable` when nobody answers, the coordinator's own refusal, and what `body` throws.
    package static func connect<Result: Sendable>(
        to address: HostPort, time: TimeSource = .system, _ body: (inout CoordinatorClient) async throws -> Result
    ) async throws -> Result {
        let connection: Connection
        do throws(TesseraError) {
            connection = try await Transport.connect(to: address, limits: .messages)
        } catch {
            throw TesseraError(error.code, error.problem, advice: "start one: tessera coordinator --listen \(address)")
        }
        return try await connection.withFrames { frames in
            var client = CoordinatorClient(connection: connection, frames: frames.makeAsyncIterator())
            try await client.greet(address, time)
            return try await body(&client)
        }
    }

    private mutating func greet(_ address: HostPort, _ time: TimeSource) async throws {
        // A peer that accepts connections but never answers must not hold the command.
        let connection = connection
        let deadline = Task {
            try await time.sleep(Limits.greeting)
            connection.close()
        }
        defer { deadline.cancel() }
        let hello = Hello(role: .client, build: tesseraVersion, name: "tessera")
        guard case .welcome = try await ask(.hello(hello)) else {
            throw TesseraError(.protocolMismatch, "\(address) did not answer with welcome")
        }
        isGreeting = false
    }

    /// Sends a request and waits for its answer.
    ///
    /// - Throws: `Problems` when the coordinator cannot meet the request, `unreachable` when the connection ends before the answer.
    package mutating func ask(_ request: Message) async throws -> Message {
        try connection.send(request)
        let frame: Frame?
        do {
            frame = try await frames.next(isolation: #isolation)
        } catch let error as FrameError {
            throw error.asTesseraError(isGreeting: isGreeting)
        }
        guard let frame else {
            throw TesseraError(
                .unreachable, isGreeting ? "the coordinator did not answer" : "the coordinator closed the connection")
        }
        let answer = try Message(frame)
        try answer.validate()
        switch answer {
        case .refusal(let refusal): throw refusal.error
        case .failure(let failure): throw Problems(failure.problems)
        case .goodbye(let reason): throw TesseraError(.unreachable, "the coordinator closed the connection: \(reason)")
        default: return answer
        }
    }

    package mutating func status(_ request: StatusRequest = StatusRequest()) async throws -> Status {
        guard case .status(let status) = try await ask(.statusRequest(request)) else {
            throw TesseraError(.protocolMismatch, "the coordinator did not answer with a status")
        }
        return status
    }

    package mutating func job(_ id: JobID) async throws -> JobStatus {
        guard let job = try await status(StatusRequest(job: id)).jobs.first else {
            throw TesseraError(.protocolMismatch, "the coordinator did not answer with the job")
        }
        return job
    }
}
