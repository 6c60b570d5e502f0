import Core
import NIOCore
import NIOPosix
package import Protocol

/// A client's connection: asks one thing at a time.
package struct CoordinatorClient {
    private let channel: any Channel
    private var inbound: NIOAsyncChannelInboundStream<Frame>.AsyncIterator

    /// Connects, and calls `body` with the connection.
    ///
    /// - Throws: `unreachable` when nobody answers, the coordinator's own refusal, and what `body` throws.
    package static func connect<Result>(
        to address: HostPort, _ body: (inout CoordinatorClient) async throws -> Result
    ) async throws -> Result {
        let connection: FrameChannel.Async
        do {
            connection = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(5))
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture { try FrameChannel.configure(channel) }
                }
        } catch {
            throw TesseraError(
                .unreachable, "no coordinator answers at \(address)", advice: "start one: tessera coordinator --listen \(address)"
            )
        }
        return try await connection.executeThenClose { inbound in
            var client = CoordinatorClient(channel: connection.channel, inbound: inbound.makeAsyncIterator())
            let hello = Hello(role: .client, build: tesseraVersion, name: "tessera")
            guard case .welcome = try await client.ask(.hello(hello)) else {
                throw TesseraError(.protocolMismatch, "\(address) did not answer with welcome")
            }
            return try await body(&client)
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// - Throws: `Problems` when the coordinator cannot meet it.
    package mutating func ask(_ request: Message) async throws -> Message {
        channel.send(request)
        let frame: Frame?
        do {
            frame = try await inbound.next(isolation: #isolation)
        } catch let error as FrameError {
            throw error.asTesseraError
        }
        guard let frame else { throw TesseraError(.unreachable, "the coordinator closed the connection") }
        switch try Message(frame) {
        case .refusal(let refusal): throw refusal.error
        case .failure(let failure): throw Problems(failure.problems)
        case .goodbye(let reason): throw TesseraError(.unreachable, "the coordinator closed the connection: \(reason)")
        case let answer: return answer
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
