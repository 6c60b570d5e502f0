import Core
import Engine
import Protocol
import TestSupport
import Testing

/// A client believes no answer that cannot be one to its request.
@Suite(.timeLimit(.minutes(15))) struct CoordinatorClientTests {
    private static let id = JobID(high: 1, low: 2), other = JobID(high: 1, low: 3)
    private static let submission = Submit(
        recipe: "", recipeName: "r", workingDirectory: "/", output: "/out", options: JobOptions())

    /// What a request leads to at a coordinator that answers `answer`.
    private func ask(
        _ request: @Sendable (inout CoordinatorClient) async throws -> Void, answer: Message
    ) async throws -> any Error {
        let peer = try await ScriptedPeer(limits: .messages), connection = peer.connection
        async let failure = #expect(throws: (any Error).self) {
            try await CoordinatorClient.connect(
                to: CoordinatorAddress(HostPort(host: "127.0.0.1", port: 1), timeout: .seconds(600)),
                dial: { () throws(TesseraError) in connection },
                request
            )
        }
        _ = try await peer.next()
        try await peer.send(
            .welcome(Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)))
        _ = try await peer.next()
        try await peer.send(answer)
        return try #require(await failure)
    }

    @Test func anEmptyFailureIsNamed() async throws {
        let error = try await ask({ _ = try await $0.submit(Self.submission) }, answer: .failure(Failure(problems: [])))
        #expect((error as? TesseraError)?.code == .protocolMismatch)
        #expect((error as? TesseraError)?.problem.contains("'problems' is empty") == true)
    }

    @Test func aJobHasAName() async throws {
        let error = try await ask(
            { _ = try await $0.submit(Self.submission) }, answer: .submitted(Submitted(job: .none, remarks: [])))
        #expect((error as? TesseraError)?.code == .protocolMismatch)
        #expect((error as? TesseraError)?.problem.contains("'job' is zero") == true)
    }

    @Test func anotherJobIsNotTheOneThatWasCancelled() async throws {
        let error = try await ask(
            { _ = try await $0.ask(.cancel(Cancel(job: Self.id, reason: ""))) }, answer: .cancelled(Cancelled(job: Self.other)))
        #expect((error as? TesseraError)?.code == .protocolMismatch)
        #expect((error as? TesseraError)?.problem.contains("about another job") == true)
    }

    @Test func anotherJobIsNotTheOneThatWasAskedFor() async throws {
        let job = JobStatus(
            id: Self.other, state: .done, method: "linear", output: "/out", plan: .none,
            shards: .init(total: 1, pending: 0, leased: 0, committed: 1), bytesDone: 1, bytesTotal: 1, bytesOutput: 1,
            bytesInput: 1, attempts: 1, submittedAt: 0, seconds: 0, error: nil, shardDetails: nil)
        for request: @Sendable (inout CoordinatorClient) async throws -> Void in [
            { _ = try await $0.summary(of: Self.id) }, { _ = try await $0.find("\(Self.id)") },
        ] {
            let error = try await ask(request, answer: .status(Status(jobs: [job], workers: [])))
            #expect((error as? TesseraError)?.problem.contains("about another job") == true)
        }
    }
}
