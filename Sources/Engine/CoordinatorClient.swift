package import Core
package import Protocol
package import Transport

/// Where a coordinator is, and how to prove to it who is asking.
package struct CoordinatorAddress: Sendable {
    package let address: HostPort
    package let tls: ClientTLS?
    package let token: ClientToken?
    /// How long a connection may take until the coordinator has greeted the client, and how long an answer.
    package let timeout: Duration

    package init(
        _ address: HostPort, tls: ClientTLS? = nil, token: ClientToken? = nil, timeout: Duration = Limits.connecting
    ) {
        self.address = address
        self.tls = tls
        self.token = token
        self.timeout = timeout
    }
}

/// A client's connection: asks one thing at a time.
package struct CoordinatorClient {
    private let connection: Connection
    private let address: HostPort
    private let time: TimeSource
    private let timeout: Duration
    /// Tells the user something.
    private let remark: @Sendable (String) -> Void
    private var frames: FrameStream.Iterator
    /// When the coordinator must have answered the hello.
    private let greetsUntil: Duration
    /// Whether the coordinator has not answered yet.
    private var isGreeting = true
    /// Whether the coordinator has answered a request.
    private var hasAnswered = false

    /// Makes a connection to the coordinator, instead of TCP.
    package typealias Dial = @Sendable () async throws(TesseraError) -> Connection

    /// Connects, and calls `body` with the connection.
    ///
    /// - Parameter remark: tells the user that an answer takes long.
    /// - Throws: `unreachable` when nobody answers, the coordinator's own refusal, what is wrong with the file of the token, and
    ///   what `body` throws.
    package static func connect<Result: Sendable>(
        to coordinator: CoordinatorAddress, time: TimeSource = .system, dial: Dial? = nil,
        remark: @escaping @Sendable (String) -> Void = { _ in }, _ body: (inout CoordinatorClient) async throws -> Result
    ) async throws -> Result {
        let connection: Connection, start = time.now(), token = try coordinator.token?.read()
        do throws(TesseraError) {
            connection =
                if let dial {
                    try await dial()
                } else {
                    try await Transport.connect(
                        to: coordinator.address, timeout: coordinator.timeout, tls: coordinator.tls, limits: .messages)
                }
        } catch {
            guard error.code == .unreachable, error.advice == nil else { throw error }
            throw TesseraError(error.code, error.problem, advice: checkAddress)
        }
        return try await connection.withFrames { frames in
            var client = CoordinatorClient(
                connection: connection, address: coordinator.address, time: time, timeout: coordinator.timeout, remark: remark,
                frames: frames.makeAsyncIterator(),
                // A connection of the caller's own making has taken none of the time.
                greetsUntil: (dial == nil ? start : time.now()) + coordinator.timeout)
            try await client.greet(token)
            return try await body(&client)
        }
    }

    private static let checkAddress = "check --coordinator, and that a coordinator listens there and can be reached"

    /// How long a coordinator that was there may be away.
    private static let patience = Duration.seconds(600)

    /// As `connect`, but calls `body` again with a new connection each time that one ends before its time. The coordinator must
    /// have answered a request once: one that greets and does no more is not waited for.
    ///
    /// - Parameters:
    ///   - random: 0..<1, for the pauses between attempts to connect.
    ///   - remark: tells the user that the coordinator is away, or an answer takes long.
    package static func reconnecting<Result: Sendable>(
        to coordinator: CoordinatorAddress, time: TimeSource = .system, dial: Dial? = nil,
        random: () -> Double = ReconnectBackoff.random, remark: @escaping @Sendable (String) -> Void,
        _ body: (inout CoordinatorClient) async throws -> Result
    ) async throws -> Result {
        var backoff = ReconnectBackoff(), lost: Duration?, wasThere = false, isMissed = false
        while true {
            do {
                return try await connect(to: coordinator, time: time, dial: dial, remark: remark) { client in
                    if isMissed { remark("connected to the coordinator again") }
                    isMissed = false
                    defer {
                        if client.hasAnswered {
                            (wasThere, lost) = (true, nil)
                            backoff.succeeded()
                        }
                    }
                    return try await body(&client)
                }
            } catch let error as TesseraError where error.code == .unreachable && wasThere {
                if lost == nil {
                    remark("lost the coordinator (\(error.problem)); reconnecting")
                    isMissed = true
                }
                let since = lost ?? time.now()
                guard time.now() - since < patience else { throw error }
                lost = since
                try await time.sleep(backoff.next(random: random()))
            }
        }
    }

    /// Makes sure that the coordinator answers, before something is asked of it whose answer may take minutes.
    package mutating func checkAnswers() async throws { _ = try await page(StatusRequest(limit: 0)) }

    /// - Throws: `Problems` when the coordinator does not take the job.
    package mutating func submit(_ submission: Submit) async throws -> Submitted {
        guard case .submitted(let submitted) = try await ask(.submit(submission)) else {
            throw TesseraError(.protocolMismatch, "the coordinator did not accept the job")
        }
        return submitted
    }

    private mutating func greet(_ token: AccessToken?) async throws {
        let hello = Hello(role: .client, build: tesseraVersion, name: "tessera", token: token)
        let answer: Message
        do { answer = try await ask(.hello(hello)) } catch let error as TesseraError { throw error.about(address) }
        guard case .welcome = answer else {
            throw TesseraError(.protocolMismatch, "\(address) did not answer with welcome")
        }
        (isGreeting, hasAnswered) = (false, false)
    }

    /// Sends a request and waits for its answer, as long as such an answer may take.
    ///
    /// - Throws: `Problems` when the coordinator cannot meet the request, `unreachable` when the connection ends before the
    ///   answer, or no answer comes in time: a coordinator that stands still must not hold the command for ever;
    ///   `protocolMismatch` for an answer out of bounds or about another job.
    package mutating func ask(_ request: Message) async throws -> Message {
        let connection = connection, time = time, start = time.now(), limit = limit(of: request)
        let timeout = timeout, remark = remark, slowness = slowness(of: request)
        return try await withThrowingTaskGroup(of: Void.self, returning: Message.self) { group in
            group.addTask {
                try await time.sleep(limit)
                connection.close()
            }
            if let slowness {
                group.addTask {
                    try await time.sleep(timeout)
                    remark("still waiting for the coordinator's answer: \(slowness)")
                }
            }
            defer { group.cancelAll() }
            do {
                let answer = try await answer(to: request)
                hasAnswered = true
                return answer
            } catch let error as TesseraError where error.code == .unreachable {
                // A signal closes the connection as well.
                try Task.checkCancellation()
                guard time.now() - start < limit else {
                    throw TesseraError(
                        .unreachable,
                        "the coordinator did not answer within \(Quantity.seconds(max(limit, timeout) / .seconds(1)))",
                        advice: "is its process stopped, or its host overloaded?"
                    ).about(address)
                }
                throw broken(error)
            } catch {
                // A refusal is an answer too.
                hasAnswered = hasAnswered || error is Problems
                throw error
            }
        }
    }

    /// An error of the connection, with the coordinator's address.
    private func broken(_ error: TesseraError) -> TesseraError {
        var named = error.about(address)
        if named.problem == error.problem, !named.problem.contains("\(address)") {
            named.problem = "the coordinator \(address) is gone: \(error.problem)"
        }
        named.advice = named.advice ?? (isGreeting ? Self.checkAddress : nil)
        return named
    }

    /// Why the answer to a request may take long; `nil` where it must not.
    private func slowness(of request: Message) -> String? {
        switch request {
        case .submit: "the plan of a large job may take minutes"
        case .cancel: "the job's unfinished output is removed"
        default: nil
        }
    }

    private func limit(of request: Message) -> Duration {
        switch request {
        // These wait for planning, and for an output to be removed.
        case .submit, .cancel: max(timeout, Limits.slowAnswer)
        case .hello: max(.zero, greetsUntil - time.now())
        default: timeout
        }
    }

    private mutating func answer(to request: Message) async throws -> Message {
        try connection.send(request)
        let frame: Frame?
        do {
            frame = try await frames.next(isolation: #isolation)
        } catch let error as FrameError {
            throw error.asTesseraError(isGreeting: isGreeting)
        }
        guard let frame else {
            throw TesseraError(
                .unreachable,
                isGreeting ? "the coordinator closed the connection without an answer" : "the coordinator closed the connection")
        }
        let answer = try Message(frame)
        try answer.validate()
        switch answer {
        case .refusal(let refusal): throw refusal.error
        case .failure(let failure): throw Problems(failure.problems)
        case .goodbye(let reason): throw TesseraError(.unreachable, "the coordinator closed the connection: \(reason)")
        default:
            guard Self.isAbout(request, answer) else {
                throw TesseraError(
                    .protocolMismatch, "the coordinator's '\(answer.name)' is about another job than the '\(request.name)' was")
            }
            return answer
        }
    }

    /// Whether an answer is about the job that the request named, if it named one.
    private static func isAbout(_ request: Message, _ answer: Message) -> Bool {
        switch (request, answer) {
        case (.cancel(let cancel), .cancelled(let cancelled)): cancelled.job == cancel.job
        case (.statusRequest(let request), .status(let status)):
            status.jobs.allSatisfy { job in
                (request.job ?? job.id) == job.id && job.id.description.hasPrefix(request.prefix?.lowercased() ?? "")
            }
        default: true
        }
    }

    /// One page.
    private mutating func page(_ request: StatusRequest) async throws -> Status {
        guard case .status(let status) = try await ask(.statusRequest(request)) else {
            throw TesseraError(.protocolMismatch, "the coordinator did not answer with a status")
        }
        return status
    }

    /// All jobs, without their shards, and all workers.
    package mutating func status() async throws -> Status {
        var status = try await page(StatusRequest())
        while let next = status.next {
            let page = try await page(StatusRequest(after: next))
            status.jobs += page.jobs
            status.next = try Self.next(page.next, after: next)
        }
        try await addWorkers(to: &status)
        return status
    }

    /// One job with all of its shards, and all workers.
    package mutating func status(of id: JobID) async throws -> Status {
        var status = try await page(StatusRequest(job: id))
        while let next = status.next, !status.jobs.isEmpty {
            let page = try await page(StatusRequest(job: id, after: next))
            status.jobs[0].shardDetails = (status.jobs[0].shardDetails ?? []) + (page.jobs.first?.shardDetails ?? [])
            status.next = try Self.next(page.next, after: next)
        }
        try await addWorkers(to: &status)
        return status
    }

    private mutating func addWorkers(to status: inout Status) async throws {
        while let next = status.nextWorkers {
            let page = try await page(StatusRequest(workersAfter: next))
            status.workers += page.workers
            status.nextWorkers = try Self.next(page.nextWorkers, after: next)
        }
    }

    /// Pages have to go forward, or a client would ask for ever.
    private static func next(_ next: Int?, after last: Int) throws(TesseraError) -> Int? {
        guard next.map({ $0 > last }) ?? true else {
            throw TesseraError(.protocolMismatch, "the coordinator's pages of status do not go forward")
        }
        return next
    }

    /// One job without its shards.
    package mutating func summary(of id: JobID) async throws -> JobStatus {
        guard let job = try await page(StatusRequest(job: id, limit: 0)).jobs.first else {
            throw TesseraError(.protocolMismatch, "the coordinator did not answer with the job")
        }
        return job
    }

    /// One job, the first of the shards that are worked on, and the workers, in one answer.
    ///
    /// - Parameter pause: how long the coordinator waits for the job's end before it answers; at most `Limits.waitMilliseconds`.
    package mutating func progress(of id: JobID, after pause: Duration = .zero) async throws -> Status {
        let wait = pause > .zero ? min(Int(pause / .milliseconds(1)), Limits.waitMilliseconds) : nil
        let status = try await page(StatusRequest(job: id, running: true, waitMilliseconds: wait))
        guard !status.jobs.isEmpty else {
            throw TesseraError(.protocolMismatch, "the coordinator did not answer with the job")
        }
        return status
    }

    /// The job whose id begins with `text`.
    ///
    /// - Throws: `inputMissing` when there is none, `usage` when there are several.
    package mutating func find(_ text: String) async throws -> JobID {
        let found = try await page(StatusRequest(prefix: text))
        guard let only = found.jobs.first else {
            throw TesseraError(.inputMissing, "the coordinator has no job '\(text)'", advice: "'tessera status' lists the jobs")
        }
        let count = max(found.total ?? 0, found.jobs.count)
        guard count == 1 else {
            throw TesseraError(.usage, "\(count) jobs begin with '\(text)'", advice: "give a longer prefix of the id")
        }
        return only.id
    }
}
