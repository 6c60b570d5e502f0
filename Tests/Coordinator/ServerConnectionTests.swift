import Core
import Dispatch
import Glibc
import Logging
import NIOCore
import Protocol
import Synchronization
import TestSupport
import Testing
import Transport
import Work

@testable import Coordinator

/// The coordinator's end of a connection with a scripted peer: no sockets, and a clock that is moved by hand.
@Suite(.timeLimit(.minutes(15))) struct ServerConnectionTests {
    private let directory: TemporaryDirectory
    private let roots: Roots
    private let manager: JobManager
    private let clock = HandClock()
    private let running: Running

    /// Takes the steps of jobs as long as the test lasts.
    private final class Running: Sendable {
        private let task: Task<Void, Never>

        init(_ manager: JobManager) { task = Task { await manager.run() } }

        deinit { task.cancel() }
    }

    init() throws {
        directory = try TemporaryDirectory()
        roots = try Roots([directory.path])
        // By the clock of the sessions: on a busy machine leases would else run out while a test waits for its turn.
        manager = JobManager(
            settings: JobManager.Settings(inputRoots: roots, build: "test", incarnation: 5), log: .silent, time: clock.source)
        running = Running(manager)
    }

    /// A peer that the coordinator serves; its task ends with the connection.
    private func connect(
        _ security: JobPortSecurity = .open, log: Logger = .silent
    ) async throws -> (peer: ScriptedPeer, serving: Task<Void, Never>) {
        let peer = try await ScriptedPeer(limits: .stranger)
        let server = ServerConnection(
            connection: peer.connection, number: 1, manager: manager, inputs: FetchSource(roots: roots),
            settings: ServerConnection.Settings(build: "test", heartbeat: Limits.heartbeatInterval, security: security),
            time: clock.source, log: log)
        return (peer, Task { await server.run() })
    }

    /// Submits a merge of one model with these tensors, of one element each.
    private func submit(_ names: [String]) async throws -> JobID {
        try TestTensor.writeCheckpoint("\(directory.path)/model", names.map { ($0, TestTensor([1])) })
        return try await manager.submit(
            Submit(
                recipe: "merge_method: linear\nmodels:\n- model: model\n  parameters: {weight: 1}\n", recipeName: "recipe.yml",
                workingDirectory: directory.path, output: "\(directory.path)/out", options: JobOptions())
        ).job
    }

    private func job(_ id: JobID) async throws -> JobStatus {
        try #require(await manager.status(StatusRequest(job: id))?.jobs.first)
    }

    private func passTime(_ duration: Duration) async throws {
        let step = Duration.milliseconds(250)
        for _ in 0..<Int(duration / step) {
            try await eventually("a manager and a session that look at the clock") { clock.sleeperCount > 1 }
            clock.advance(by: step)
        }
    }

    // MARK: Admission

    /// Each of these once ended the process, and with it all jobs, or would have.
    @Test(arguments: [
        Hello(role: .worker, build: "x", name: "w", threads: .max, memory: 1 << 40),
        Hello(role: .worker, build: "x", name: "w", threads: 1 << 46, memory: 1 << 40),
        Hello(role: .worker, build: "x", name: "w", threads: 1, memory: .min),
        Hello(role: .worker, build: "x", name: "w", threads: 1, memory: 1, tensorMemory: .max),
    ])
    func aHostileHelloIsRefusedAndTheCoordinatorLives(hello: Hello) async throws {
        let id = try await submit(["layers.0.a"])
        let (hostile, serving) = try await connect()
        try await hostile.send(.hello(hello))
        guard case .refusal(let refusal)? = await hostile.messagesToEnd().first else {
            Issue.record("the hello was taken")
            return
        }
        #expect(refusal.error.code == .protocolMismatch)
        await serving.value
        let (worker, _) = try await connect()
        try await worker.join()
        #expect(try await worker.nextLease().attempt.job == id)
        await worker.close()
    }

    @Test func aStrangerMaySayLittle() async throws {
        let long = Message.goodbye(String(repeating: "x", count: 70_000))
        let block = Frame(.block, body: ByteBuffer(repeating: 0, count: 24))
        for frame in [try long.frame(), block] {
            let (stranger, serving) = try await connect()
            try await stranger.send(frame)
            #expect(await stranger.messagesToEnd() == [])
            await serving.value
        }
    }

    @Test func aStrangerMayNotWaitForLong() async throws {
        let (stranger, serving) = try await connect()
        try await passTime(.seconds(10))
        #expect(await stranger.messagesToEnd() == [.goodbye("no hello in time")])
        await serving.value
    }

    // MARK: Tokens

    /// A token that is removed is of no use from then on, also on connections that it opened.
    @Test func connectionsOfRemovedTokensEnd() async throws {
        let secret = "0123456789abcdef", certificates = try Certificates()
        let path = try certificates.directory.write("worker \(secret)-w\nann viewer \(secret)-v\n", to: "tokens")
        chmod(path, 0o600)
        let tls = try ServerTLS(
            files: TLSFiles(certificate: certificates.path("127.0.0.1.pem"), key: certificates.path("127.0.0.1.key")),
            authority: nil)
        let tokens = try ServerTokens(path: path), lines = RecordedLog()
        let security = JobPortSecurity.tokens(tokens, tls)
        let (worker, working) = try await connect(security), (client, asking) = try await connect(security)
        try await worker.send(
            .hello(
                Hello(
                    role: .worker, build: "x", name: "w", threads: 1, memory: 1 << 40, token: AccessToken("\(secret)-w"))))
        try await client.send(.hello(Hello(role: .client, build: "x", name: "c", token: AccessToken("\(secret)-v"))))
        for peer in [worker, client] { try await peer.next { if case .welcome = $0 { () } else { nil } } }

        try certificates.directory.write("# only ann\nann viewer \(secret)-v\n", to: "tokens")
        chmod(path, 0o600)
        var watch = CredentialWatch(security, log: lines.logger)
        watch.look()
        try await passTime(.seconds(2))
        guard case .goodbye(let reason)? = await worker.messagesToEnd().last else {
            Issue.record("the worker stays")
            return
        }
        #expect(reason.contains("the holder of the token on line 1 was admitted by a token that has been removed"))
        await working.value
        try await client.send(.statusRequest(StatusRequest()))
        guard case .status = try await client.next() else { throw TesseraError(.internal, "the client was sent away") }

        // A file that cannot be used changes nothing, and that is said once.
        chmod(path, 0o644)
        for _ in 0..<2 { watch.look() }
        #expect(tokens.version == 1)
        let told = lines.all.map { "\($0.level): \($0.message)" }
        #expect(
            told == [
                "notice: the token file has changed; connections of removed tokens end",
                "warning: the new token file cannot be used; what was read before stays in use",
            ])
        #expect(lines.all[0].metadata["removed"] == "token on line 1" && lines.all[0].metadata["added"] == "")
        #expect(!lines.all.contains { "\($0.metadata)".contains(secret) })
        await client.close()
        await asking.value
    }

    // MARK: Clients

    private func client() async throws -> (peer: ScriptedPeer, serving: Task<Void, Never>) {
        let (client, serving) = try await connect()
        try await client.send(.hello(Hello(role: .client, build: "x", name: "c")))
        guard case .welcome = try await client.next() else { throw TesseraError(.internal, "the client was not welcomed") }
        return (client, serving)
    }

    @Test func aClientThatTakesNoAnswersIsClosed() async throws {
        let (client, serving) = try await client()
        try await client.stopReading()
        // The second request is not even looked at before the first answer has left.
        for _ in 0..<2 { try await client.send(.statusRequest(StatusRequest())) }
        let isOver = Atomic(false)
        Task {
            await serving.value
            isOver.store(true, ordering: .relaxed)
        }
        // Time passes until the end: nothing says when the answer begins to wait.
        try await eventually("the end of the connection") {
            try await passTime(Limits.answering)
            return isOver.load(ordering: .relaxed)
        }
    }

    @Test func aClientThatAsksNothingIsClosed() async throws {
        let (client, serving) = try await client()
        try await passTime(Limits.idleClient + .milliseconds(250))
        #expect(await client.messagesToEnd() == [.goodbye("no request for a long time")])
        await serving.value
    }

    /// Whoever follows a job learns of its end at once, and of anything else after the time that was asked for.
    @Test func anAnswerMayWaitForTheEndOfAJob() async throws {
        let id = try await submit(["layers.0.a"]), (peer, _) = try await client()
        func ask(_ milliseconds: Int) async throws {
            try await peer.send(.statusRequest(StatusRequest(job: id, waitMilliseconds: milliseconds)))
        }
        func state() async throws -> JobState? {
            try await peer.next { if case .status(let status) = $0 { status.jobs.first?.state } else { nil } }
        }
        try await ask(500)
        try await eventually("an answer that waits") { clock.sleeperCount > 2 }
        try await passTime(.seconds(1))
        #expect(try await state() == .running)
        try await ask(1000)
        try await manager.cancel(id, reason: "enough", by: .local)
        #expect(try await state() == .cancelled)
        // An answer at once: no time passes on the clock of this test.
        try await ask(1000)
        #expect(try await state() == .cancelled)
        await peer.close()
    }

    // MARK: Blocks

    /// A block of zeros for the lease's first output, and the result that goes with it.
    private func answer(_ lease: Lease) throws -> (block: Frame, done: Message) {
        let bytes = [UInt8](repeating: 0, count: lease.work.outputs[0].byteCount)
        let block = bytes.withUnsafeBytes { BlockFrame.packing($0, elementWidth: 4, of: lease.attempt, tensor: 0, offset: 0) }
        return (block, .shardDone(ShardDone(attempt: lease.attempt, result: ShardResult(digests: []))))
    }

    /// Occupies all threads that write.
    private final class HangingDisk: Sendable {
        private static let threads = 4
        private let gate = DispatchSemaphore(value: 0)
        private let blocked = Atomic(0)

        init(_ pool: BlockingPool) {
            for _ in 0..<Self.threads {
                Task { [self] in
                    try await pool.run {
                        self.blocked.add(1, ordering: .relaxed)
                        self.gate.wait()
                    }
                }
            }
        }

        var hangs: Bool { blocked.load(ordering: .relaxed) == Self.threads }

        func goOn() { for _ in 0..<Self.threads { gate.signal() } }
    }

    /// For a minute the disk takes nothing. The worker is alive all the while, and so is its lease; then its result counts.
    @Test func aSlowDiskClosesNoHealthyWorker() async throws {
        let id = try await submit(["layers.0.a"])
        let (worker, _) = try await connect()
        try await worker.join()
        let (block, done) = try answer(try await worker.nextLease())
        let disk = HangingDisk(manager.pools.writing)
        try await eventually("a disk that hangs") { disk.hangs }
        try await worker.send(block)
        try await worker.send(done)
        for number in 1...12 {
            try await passTime(.seconds(5))
            try await worker.send(.heartbeat(Heartbeat(number: number, leases: [])))
            let answer = try await worker.next { (message: Message) -> Message? in
                switch message {
                case .heartbeatAnswer, .goodbye, .credit: message
                default: nil
                }
            }
            #expect(answer == .heartbeatAnswer(HeartbeatAnswer(number: number)))
        }
        #expect(try await job(id).shards.committed == 0)
        disk.goOn()
        _ = try await worker.next { if case .credit(let credit) = $0 { credit } else { nil } }
        try await eventually("the result") { try await job(id).shards.committed == 1 }
        #expect(try await job(id).attempts == 1)
        await worker.close()
    }

    // MARK: Ends

    /// A link that flips bits costs time, and no job.
    @Test func damagedFramesAreNoLostWorkers() async throws {
        let id = try await submit(["layers.0.a"])
        for _ in 0..<5 {
            let (worker, serving) = try await connect()
            try await worker.join()
            let (block, _) = try answer(try await worker.nextLease())
            var bytes = worker.encoded(block)
            let last: UInt8 = bytes.getInteger(at: bytes.writerIndex - 1) ?? 0
            bytes.setInteger(last ^ 1, at: bytes.writerIndex - 1)
            try await worker.send(bytes: bytes)
            await serving.value
        }
        #expect(try await job(id).state == .running)
        let (worker, _) = try await connect()
        try await worker.join()
        let (block, done) = try answer(try await worker.nextLease())
        try await worker.send(block)
        try await worker.send(done)
        try await eventually("the result") { try await job(id).shards.committed == 1 }
        await worker.close()
    }

    /// A worker whose results are nonsense is not given the same shard again as soon as it is back, and people see why.
    @Test func nonsenseIsAFailedAttempt() async throws {
        let id = try await submit(["layers.0.a"])
        let (worker, serving) = try await connect()
        try await worker.join()
        _ = try await worker.nextLease()
        try await worker.send(Frame(.control, body: ByteBuffer(string: #"{"type":"shardDone","content":{}}"#)))
        await serving.value
        let status = try await job(id)
        #expect(status.state == .running && status.attempts == 1)
        let failures = status.shardDetails?.first?.failures
        #expect(failures?.count == 1, "\(String(describing: failures))")
        let (other, _) = try await connect()
        try await other.join()
        try await other.send(.heartbeat(Heartbeat(number: 1, leases: [])))
        let first = try await other.next { message -> String? in message.name }
        #expect(first != "lease")
        await other.close()
    }

    /// Once, at once, and with what to do: no worker can be sent such a lease.
    @Test func aLeaseThatNoFrameHoldsFailsTheJob() async throws {
        let names = (0..<600).map { "layers.0." + String(repeating: "x", count: 3900) + "\($0)" }
        let id = try await submit(names)
        let (worker, _) = try await connect()
        try await worker.join()
        try await eventually("the end of the job") { try await job(id).state.isEnd }
        let status = try await job(id)
        #expect(status.state == .failed && status.attempts == 1)
        #expect(status.error?.code == .usage && status.error?.advice == "submit the job again with a smaller --shard-size")
        #expect(status.error?.problem.contains("the message 'lease' has ") == true)
        // The connection is as good as before.
        try await worker.send(.heartbeat(Heartbeat(number: 1, leases: [])))
        _ = try await worker.next { if case .heartbeatAnswer(let answer) = $0 { answer } else { nil } }
        await worker.close()
    }
}
