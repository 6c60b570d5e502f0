import Core
import Foundation
import NIOCore
import Protocol
import TestSupport
import Testing

/// Peers that are not what they should be. The coordinator says why it closes, and goes on working.
@Suite(.serialized) struct PeerTests {
    private func frame(_ message: Message, by encoder: inout FrameEncoder) throws -> [UInt8] {
        let frame = try message.frame()
        return Array(encoder.encodeHeader(of: frame).readableBytesView) + Array(frame.body.readableBytesView)
    }

    /// The messages in what a peer sent before it closed.
    private func messages(in bytes: [UInt8]) throws -> [Message] {
        var messages: [Message] = []
        var decoder = FrameDecoder(), rest = ByteBuffer(bytes: bytes)
        while let frame = try decoder.next(in: &rest) { messages.append(try Message(frame)) }
        return messages
    }

    /// The header of a frame as builds of protocol 2 sent it.
    private static let headerOfVersion2: [UInt8] =
        Array("TSRA".utf8) + [2, 0, 2, 0, 0, 0, 0, 0, 0x09, 0xaa, 0xdc, 0x36, 7, 0, 0, 0, 0xc2, 0x04, 0x7e, 0x19, 3, 0, 0, 0]
        + [0x44, 0x33, 0x22, 0x11] + [UInt8](repeating: 0, count: 8) + Array(1...16) + [5, 0, 0, 0, 0, 0, 0, 0]

    private func expectAlive(_ cluster: Cluster) async throws {
        let outcome = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
    }

    @Test(
        arguments: [
            ("HTTP", Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), "does not speak HTTP"),
            ("TLS", [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03], "speaks TLS"),
            ("Tessera", headerOfVersion2, "speaks protocol 2, this build speaks \(FrameHeader.protocolVersion)"),
            ("random", (0..<500).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ 7) }, "does not speak Tessera's protocol"),
        ] as [(String, [UInt8], String)])
    func otherProtocolsAreClosedAtOnce(name: String, bytes: [UInt8], words: String) async throws {
        let cluster = try await Cluster()
        let connection = try RawConnection(cluster.jobs)
        connection.send(bytes)
        // A TLS client is told in a frame, which it takes for no TLS; another build is told in a frame of another version.
        let answer = try messages(in: await connection.readToEnd())
        #expect(answer.map(\.name) == (["TLS", "Tessera"].contains(name) ? ["refusal"] : []))
        try await eventually("a log line") { cluster.coordinator.errors.contains(words) }
        try await expectAlive(cluster)
    }

    @Test func aWorkerOfAnotherBuildIsRefused() async throws {
        let cluster = try await Cluster()
        let connection = try RawConnection(cluster.jobs)
        var encoder = FrameEncoder()
        var hello = Hello(role: .worker, build: "9.9.9", name: "stranger", threads: 4, memory: 1 << 30)
        hello.numericsVersion = 99
        connection.send(try frame(.hello(hello), by: &encoder))
        let answer = try messages(in: await connection.readToEnd())
        guard case .refusal(let refusal)? = answer.first else {
            Issue.record("\(answer)")
            return
        }
        #expect(refusal.error.code == .protocolMismatch)
        #expect(refusal.error.problem.contains("numerics 99 (build 9.9.9)"))
        #expect(try await cluster.get("/api/v1/workers", as: [Cluster.Worker].self).isEmpty)
        try await expectAlive(cluster)
    }

    /// Starts a worker whose coordinator answers every hello with these bytes; on a busy machine it may come more than once.
    private func worker(thatIsAnswered answer: [UInt8]) async throws -> RunningTessera {
        let listener = try RawListener()
        let worker = try RunningTessera(["worker", "--coordinator", "127.0.0.1:\(listener.port)"])
        while worker.isRunning {
            guard let connection = await listener.accept() else { continue }
            let greeting = try messages(in: await connection.read())
            guard case .hello(let hello)? = greeting.first else { continue }
            #expect(hello.role == .worker && hello.threads > 0)
            connection.send(answer)
        }
        return worker
    }

    @Test func aRefusedWorkerEndsWithTheReason() async throws {
        var encoder = FrameEncoder()
        let error = TesseraError(.protocolMismatch, "the coordinator refuses this peer", advice: "run the same build")
        let worker = try await worker(thatIsAnswered: try frame(.refusal(Refusal(error)), by: &encoder))
        #expect(await worker.exitCode() == 76)
        #expect(worker.errors.contains(" refuses this peer — run the same build"), "\(worker.errors)")
    }

    @Test(
        arguments: [
            (
                Array("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".utf8) + [UInt8](repeating: 0, count: 64),
                "speaks HTTP; the coordinator's job port is another one"
            ),
            (headerOfVersion2, "speaks protocol 2, this build speaks \(FrameHeader.protocolVersion)"),
        ])
    func aWorkerThatMeetsAnotherProtocolEndsWithTheReason(answer: [UInt8], words: String) async throws {
        let worker = try await worker(thatIsAnswered: answer)
        #expect(await worker.exitCode() == 76)
        #expect(worker.errors.contains(words), "\(worker.errors)")
    }

    /// Also before the first answer, and in the middle of a request.
    @Test(arguments: [["status"], ["cancel", "ab"], ["submit", "cases/linear/recipe.yml", "/nowhere/out"]], [false, true])
    func aResetEndsAClientWithASentence(command: [String], isWelcomed: Bool) async throws {
        let listener = try RawListener()
        let client = try RunningTessera(command + ["--coordinator", "127.0.0.1:\(listener.port)"])
        var encoder = FrameEncoder()
        let welcome = Welcome(
            version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)
        while client.isRunning {
            guard let connection = await listener.accept() else { continue }
            _ = await connection.read()
            if isWelcomed {
                connection.send(try frame(.welcome(welcome), by: &encoder))
                _ = await connection.read()
            }
            connection.reset()
        }
        #expect(await client.exitCode() == 69, "\(client.errors)")
        #expect(client.errors.contains("the connection was reset by the other side"), "\(client.errors)")
        #expect(client.errors.split(separator: "\n").count == 1, "\(client.errors)")
    }

    private static let welcome = Welcome(
        version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)

    /// A coordinator that greets and stands still from then on holds no command for longer than `--timeout`.
    @Test(arguments: [
        ["status"], ["status", "--watch"], ["wait", "ab"], ["cancel", "ab"],
        ["submit", "cases/linear/recipe.yml", "/nowhere/out"], ["submit", "cases/linear/recipe.yml", "/nowhere/out", "--wait"],
    ])
    func aCoordinatorThatOnlyGreetsHoldsNobody(command: [String]) async throws {
        let listener = try RawListener()
        // On a busy machine the greeting may be what comes too late, with the same words.
        let client = try RunningTessera(command + ["--coordinator", "127.0.0.1:\(listener.port)", "--timeout", "2"])
        var connections: [RawConnection] = []
        while client.isRunning {
            guard let connection = await listener.accept() else { continue }
            var encoder = FrameEncoder()
            _ = await connection.read()
            connection.send(try frame(.welcome(Self.welcome), by: &encoder))
            connections.append(connection)
        }
        #expect(await client.exitCode() == 69, "\(client.errors)")
        #expect(client.errors.contains("the coordinator 127.0.0.1:\(listener.port) did not answer within"), "\(client.errors)")
        #expect(client.errors.split(separator: "\n").count == 1 && connections.count == 1, "\(client.errors)")
    }

    /// Who gives up while the coordinator plans is told that there may be a job.
    @Test func anInterruptedSubmissionMayHaveBeenAccepted() async throws {
        let listener = try RawListener(), address = "127.0.0.1:\(listener.port)"
        let client = try RunningTessera([
            "submit", "cases/linear/recipe.yml", "/nowhere/out", "--coordinator", address, "--timeout", "100",
        ])
        var accepted: RawConnection?
        while accepted == nil, client.isRunning { accepted = await listener.accept() }
        let connection = try #require(accepted, "\(client.errors)")
        var encoder = FrameEncoder(), received: [UInt8] = []
        for (number, answer) in [Message.welcome(Self.welcome), .status(Status(jobs: [], workers: [])), nil].enumerated() {
            while try messages(in: received).count <= number {
                let piece = await connection.read()
                try #require(!piece.isEmpty, "\(client.errors)")
                received += piece
            }
            if let answer { connection.send(try frame(answer, by: &encoder)) }
        }
        #expect(try messages(in: received).map(\.name) == ["hello", "statusRequest", "submit"])
        client.signal(SIGINT)
        #expect(await client.exitCode() == 130)
        let words = "the job may have been accepted; see: tessera status --coordinator \(address) --timeout 100"
        #expect(client.errors.contains(words) && !client.errors.contains("reconnecting"), "\(client.errors)")
    }

    @Test func aPeerThatBreaksTheRulesIsClosed() async throws {
        let cluster = try await Cluster()
        for message in [Message.drain, .heartbeat(Heartbeat(number: 1, leases: []))] {
            let connection = try RawConnection(cluster.jobs)
            var encoder = FrameEncoder()
            connection.send(try frame(message, by: &encoder))
            #expect(try messages(in: await connection.readToEnd()) == [.goodbye("expected hello")])
        }
        try await expectAlive(cluster)
    }

    /// A worker may fetch the inputs of running jobs, and nothing else: neither by path, nor by guessing.
    @Test func noOtherFileIsHandedOut() async throws {
        let cluster = try await Cluster()
        let connection = try RawConnection(cluster.jobs)
        var encoder = FrameEncoder()
        connection.send(try frame(.hello(Hello(role: .worker, build: "x", name: "thief", threads: 1, memory: 1)), by: &encoder))
        #expect(try messages(in: await connection.read()).count == 1)
        for path in ["etc/passwd", "../../etc/passwd", "/etc/passwd"] {
            let file = InputFileForTest(path: path, size: 100, headerDigest: try .sha256(of: []))
            connection.send(try frame(try file.request(number: 1), by: &encoder))
        }
        var answers = ""
        while answers.components(separatedBy: "no running job reads this file").count <= 3 {
            let answer = await connection.read()
            try #require(!answer.isEmpty, "\(answers)")
            answers += String(decoding: answer, as: UTF8.self)
        }
        #expect(!answers.contains("root:"))
    }

    /// Bytes of another size, made by hand, since workers do not ask for what no lease names.
    private struct InputFileForTest: Codable {
        let path: String
        let size: Int
        let headerDigest: Digest
        var version = ""

        func request(number: UInt64) throws -> Message {
            let file = String(decoding: try JSONEncoder().encode(self), as: UTF8.self)
            let text = "{\"type\":\"fetch\",\"content\":{\"request\":\(number),\"file\":\(file),\"offset\":0,\"length\":10}}"
            return try Message(Frame(.control, body: ByteBuffer(string: text)))
        }
    }

    // MARK: The status port

    @Test func theStatusPortAnswers() async throws {
        let cluster = try await Cluster(workers: 1)
        #expect(try await HTTP.get(cluster.status + "/healthz").status == 200)
        #expect(try await HTTP.get(cluster.status + "/readyz").status == 200)
        let workers = try await cluster.get("/api/v1/workers", as: [Cluster.Worker].self)
        #expect(workers.map(\.name) == ["worker-1"] && workers.map(\.state) == ["idle"])
        let directory = try TemporaryDirectory()
        let path = "cases/linear/recipe.yml", recipe = try String(contentsOfFile: "\(Repository.golden)/\(path)", encoding: .utf8)
        try directory.write(recipe + "\nwieght: 3\n", to: "r.yml")
        let outcome = try await cluster.submit("\(directory.path)/r.yml", "\(directory.path)/out", ["--wait", "--json"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let id = try JSONDecoder().decode(Cluster.Job.self, from: Data(outcome.output.utf8)).id
        let job = try await cluster.job(id)
        #expect(job.state == "done" && job.method == "linear" && job.output == "\(directory.path)/out")
        #expect(job.shards.committed == job.shards.total && job.shardDetails?.count == job.shards.total)
        #expect(job.shardDetails?.allSatisfy { $0.workers == ["worker-1"] && $0.state == "committed" } == true)
        #expect(try await cluster.get("/api/v1/jobs/\(id)?limit=1", as: Cluster.Job.self).shardDetails?.count == 1)
        #expect(try await cluster.get("/api/v1/jobs/\(id)?limit=0", as: Cluster.Job.self).shardDetails == nil)
        #expect(try await cluster.get("/api/v1/jobs?after=0", as: [Cluster.Job].self).isEmpty)
        #expect(try await cluster.get("/api/v1/jobs?limit=1", as: [Cluster.Job].self).map(\.id) == [id])
        #expect(try await HTTP.get(cluster.status + "/api/v1/jobs?after=x").status == 400)
        #expect(try await HTTP.get(cluster.status + "/api/v1/jobs/0123").status == 404)
        #expect(try await HTTP.get(cluster.status + "/api/v1/jobs/\(String(repeating: "0", count: 32))").status == 404)
        #expect(try await HTTP.get(cluster.status + "/etc/passwd").status == 404)
        #expect(try await HTTP.get(cluster.status + "/").body.hasPrefix("<!doctype html>"))
        #expect(try await HTTP.get(cluster.status + "/openapi.json").body.hasPrefix("{"))
        #expect(try await HTTP.get(cluster.status + "/metrics").body.contains("tessera_jobs_ended_total{state=\"done\"} 1\n"))
        let plan = try await HTTP.get(cluster.status + "/api/v1/jobs/\(id)/plan").body
        #expect(plan.contains("merge_method: linear") && !plan.contains("warning: "), "\(plan)")
        #expect(plan.contains(#""problem" : "unknown or unused key 'wieght' in a recipe"#), "\(plan)")
        #expect(try await HTTP.get(cluster.status + "/api/v1/jobs/\(id)/shards/0").body.contains("\"begunAfter\""))
        #expect(try await HTTP.get(cluster.status + "/api/v1/events?job=x").status == 404)
        // The beginning of an id is enough.
        #expect(try await cluster.job(String(id.prefix(6))).id == id)
    }

    /// Whatever is asked for, an error is JSON that says what is wrong.
    @Test func theStatusPortShowsAndDoesNoMore() async throws {
        let cluster = try await Cluster()
        func ask(_ method: String, _ path: String) async throws -> String {
            let connection = try RawConnection(cluster.status.replacingOccurrences(of: "http://", with: ""))
            connection.send(
                Array(
                    "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8))
            return String(decoding: await connection.readToEnd(), as: UTF8.self)
        }
        for method in ["POST", "DELETE", "PUT"] {
            let answer = try await ask(method, "/api/v1/jobs")
            #expect(answer.hasPrefix("HTTP/1.1 405 ") && answer.lowercased().contains("\r\nallow: get, head\r\n"), "\(answer)")
            #expect(answer.contains(#"{"error":{"message":""#), "\(answer)")
        }
        for path in ["/healthz", "/api/v1/jobs"] {
            let head = try await ask("HEAD", path)
            #expect(head.hasPrefix("HTTP/1.1 200 ") && head.hasSuffix("\r\n\r\n"), "\(head)")
        }
        let unknown = try await ask("GET", "/nope")
        #expect(unknown.hasPrefix("HTTP/1.1 404 ") && unknown.contains("/openapi.json describes"), "\(unknown)")
    }

    /// An open page does not keep a coordinator that is told to end.
    @Test func eventStreamsEndWithTheCoordinator() async throws {
        let cluster = try await Cluster()
        let reader = try RawConnection(cluster.status.replacingOccurrences(of: "http://", with: ""))
        reader.send(Array("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8))
        var seen: [UInt8] = []
        repeat {
            let piece = await reader.read()
            try #require(!piece.isEmpty)
            seen += piece
        } while !String(decoding: seen, as: UTF8.self).contains("event: status")
        cluster.coordinator.signal(SIGTERM)
        #expect(await cluster.coordinator.exitCode() == 0)
        // The last chunk: a stream that ends, and not a connection that breaks.
        #expect(String(decoding: await reader.readToEnd(), as: UTF8.self).hasSuffix("0\r\n\r\n"))
    }

    @Test func theStatusPortAnswersKnownHostNamesOnly() async throws {
        let cluster = try await Cluster(coordinator: ["--status-host", "tessera.example"])
        for (host, status) in [
            ("127.0.0.1:80", 200), ("[::1]:7071", 200), ("[::1]", 200), ("localhost:1", 200), ("Tessera.example", 200),
            ("rebound.example", 421), ("127.0.0.1.example:80", 421),
        ] { #expect(try await HTTP.get(cluster.status + "/api/v1/jobs", host: host).status == status, "\(host)") }
    }

    /// They once took all descriptors, so that jobs could not open their files, and then all places, so that probes waited.
    @Test func idleConnectionsOfTheStatusPortTakeFewDescriptors() async throws {
        let cluster = try await Cluster(), address = cluster.status.replacingOccurrences(of: "http://", with: "")
        let before = cluster.coordinator.descriptorCount
        let idle = try (0..<300).map { _ in try RawConnection(address) }
        for path in ["/healthz", "/readyz"] { #expect(try await HTTP.get(cluster.status + path).status == 200) }
        try await eventually("the others to be closed") { cluster.coordinator.descriptorCount <= before + 40 }
        try await expectAlive(cluster)
        withExtendedLifetime(idle) {}
    }

    /// Nothing that is no request holds the connection, or takes memory.
    @Test func headsWithoutEndAreClosed() async throws {
        let cluster = try await Cluster(), address = cluster.status.replacingOccurrences(of: "http://", with: "")
        let long = String(repeating: "x", count: 20 << 10)
        for (head, status) in [
            ("GET /healthz HTTP/1.1\r\n\r\n", 400), ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \(long)", 431),
            ("GET /\(long)", 431),
        ] {
            let connection = try RawConnection(address)
            connection.send(Array(head.utf8))
            #expect(String(decoding: await connection.readToEnd(), as: UTF8.self).hasPrefix("HTTP/1.1 \(status) "))
        }
        #expect(try await HTTP.get(cluster.status + "/healthz").status == 200)
    }

    @Test func aStatusPortInUseIsNamed() async throws {
        let cluster = try await Cluster()
        let address = cluster.status.replacingOccurrences(of: "http://", with: "")
        let second = try await Tessera.run(["coordinator", "--listen", "127.0.0.1:0", "--status", address])
        #expect(
            second.exitCode == 73 && second.errors.contains("cannot listen on \(address): the port is in use"), "\(second.errors)"
        )
    }
}
