import Core
import Foundation
import NIOCore
import Operators
import Protocol
import TaskVectors
import TensorKernels
import Testing
import Work

@Suite struct MessageTests {
    private static let attempt = Attempt(job: JobID(high: 1, low: 2), shard: 3, epoch: 4, incarnation: 6)
    private static let file = InputFile(path: "m/model.safetensors", size: 10, headerDigest: digest)
    private static let digest = TreeDigest.example
    private static let error = TesseraError(.badData, "is bad", file: "f", line: 2, tensor: "t", advice: "mend it")
    private static let job = JobStatus(
        id: attempt.job, state: .running, method: "ties", output: "/out", plan: digest,
        shards: JobStatus.Shards(total: 3, pending: 1, leased: 1, committed: 1), bytesDone: 5, bytesTotal: 9, bytesOutput: 8,
        bytesInput: 20,
        attempts: 2,
        submittedAt: 1.5, seconds: 2.5, error: error,
        shardDetails: [
            ShardStatus(index: 0, label: "layers.0", state: .leased, workers: ["w"], attempts: 1, bytesDone: 2, bytesTotal: 3)
        ])
    private static let identity = BaseIdentity(digest: digest, sample: digest)
    private static let stored = StoredReference(file: 0, offset: 8, dtype: .f32, shape: [2, 3])
    private static let source = SourceReference.stored(stored)
    private static let map: RowMap = {
        var map = RowMap()
        map.append(.stored(RowMap.SourceRow(source: 1, row: 0)))
        map.append(.padding)
        return map
    }()
    private static let work = ShardWork(
        label: "layers.0", files: [file],
        tensors: [
            TensorWork(
                name: "t", shape: [2, 3],
                operation: .merge(
                    MergeOperation(
                        method: "linear",
                        values: ParameterValues(shared: ["normalize": .flag(true)], perInput: [["weight": .number(0.5)]]),
                        base: nil, codec: .rounding(to: .bf16))),
                sources: [
                    source,
                    .lowRank(source, LowRankReference(a: stored, b: stored, rank: 1, scale: 0.5, isTransposed: true)),
                    .packed(
                        base: source,
                        VectorReference(
                            shape: [2, 3], own: .init(format: .sparse(kept: 2, .raw(.bf16)), file: 0, offsets: [1, 2]),
                            shared: .init(
                                format: .dense(.grid(Grid(bits: 3, granularity: .group(32)))), file: 0, offsets: [3, 4, 5]),
                            factor: 0.5, baseSample: digest)),
                    .aligned(
                        [
                            source,
                            .lowRank(source, LowRankReference(a: stored, b: stored, rank: 1, scale: 2, isTransposed: false)),
                        ],
                        AlignmentReference(rowLength: 3, map: map)),
                ],
                outputs: [OutputTensor(name: "t", dtype: .bf16, byteCount: 12, part: 0, offset: 64, blockSize: 4 << 20)]),
            TensorWork(
                name: "u", shape: [2, 3],
                operation: .encode(
                    .quantize(
                        Quantizer(
                            shared: .dense(.grid(Grid(bits: 3, granularity: .tensor))),
                            tasks: [.zero, .dense(.raw(.f32)), .dense(.grid(Grid(bits: 2, granularity: .row)))]))),
                sources: [], outputs: []),
        ])

    static let all: [Message] = [
        .hello(Hello(role: .worker, build: "0.1.0", name: "w", threads: 2, memory: 1 << 30)),
        .welcome(Welcome(version: 4, build: "0.1.0", session: 1, heartbeatMilliseconds: 5000, credit: 100)),
        .refusal(Refusal(error)),
        .heartbeat(Heartbeat(number: 7, leases: [LeaseProgress(attempt: attempt, bytesDone: 5)])),
        .heartbeatAnswer(HeartbeatAnswer(number: 7)),
        .lease(Lease(attempt: attempt, milliseconds: 30_000, work: work)), .revoke(Revoke(attempt: attempt, reason: "late")),
        .shardDone(
            ShardDone(
                attempt: attempt,
                result: ShardResult(
                    digests: [[digest], []],
                    statistics: [
                        .encoding(.vectors(base: identity, [VectorError(error: 1e-9, energy: 0.5)])), nil,
                        .encoding(.grids([GridErrors(energy: 1, errors: [[0.1, 0.2]])])),
                        .encoding(.magnitudes([MagnitudeCounts([MagnitudeCount(bin: 3, count: 4)])])),
                        .merge(
                            MergeStatistics(
                                ["cosines": [0.5]],
                                counts: ["threshold": [MagnitudeCounts([]), MagnitudeCounts([MagnitudeCount(bin: 7, count: 9)])]])
                        ),
                    ]),
                delivery: .direct)),
        .shardFailed(ShardFailed(attempt: attempt, error: error)),
        .credit(Credit(bytes: 9)), .fetch(FetchRequest(request: 1, file: file, offset: 2, length: 3)),
        .fetchFailed(FetchFailed(request: 1, error: error)), .drain, .goodbye("done"),
        .submit(
            Submit(
                recipe: "merge_method: linear", recipeName: "r.yml", workingDirectory: "/", output: "out",
                options: JobOptions())),
        .submitted(Submitted(job: attempt.job, remarks: ["note"])), .statusRequest(StatusRequest(job: attempt.job)),
        .status(
            Status(
                jobs: [job],
                workers: [
                    WorkerStatus(
                        id: 1, name: "w", address: "::1", build: "0.1.0", state: .busy, threads: 2, memory: 3, leases: 1,
                        shardsDone: 4,
                        bytesDone: 5, bytesDirect: 4, secondsConnected: 6)
                ])), .cancel(Cancel(job: attempt.job, reason: "enough")), .cancelled(Cancelled(job: attempt.job)),
        .failure(Failure(problems: [error])),
    ]

    @Test(arguments: all)
    func survivesTheWire(message: Message) throws { #expect(try Message(try message.frame()) == message) }

    /// A recipe may have a value of megabytes wrong, and thousands of values.
    @Test func failuresAreShort() throws {
        let long = String(repeating: "x", count: 3_000_000)
        let error = TesseraError(.usage, long, file: long, line: 7, tensor: long, advice: long)
        let failure = Failure(problems: Array(repeating: error, count: 5000))
        #expect(failure.problems.count == 101 && failure.problems.last?.problem == "and 4900 further problems")
        #expect(failure.problems[0].line == 7 && failure.problems[0].code == .usage)
        #expect(try Message.failure(failure).frame().body.readableBytes < 1_000_000)
    }

    /// The JSON of some messages, as docs/protocol.md shows it.
    @Test(
        arguments: [
            (Message.drain, #"{"type":"drain"}"#), (.goodbye("done"), #"{"content":"done","type":"goodbye"}"#),
            (.credit(Credit(bytes: 9)), #"{"content":{"bytes":9},"type":"credit"}"#),
            (
                .revoke(Revoke(attempt: attempt, reason: "late")),
                #"{"content":{"attempt":{"epoch":4,"incarnation":6,"job":"00000000000000010000000000000002","shard":3},"#
                    + #""reason":"late"},"type":"revoke"}"#
            ),
            (
                .hello(Hello(role: .worker, build: "0.1.0", name: "w", threads: 2, memory: 1024, numericsVersion: 1)),
                #"{"content":{"build":"0.1.0","memory":1024,"name":"w","newestVersion":4,"#
                    + #""numericsVersion":1,"oldestVersion":4,"role":"worker","threads":2},"type":"hello"}"#
            ),
        ] as [(Message, String)])
    func theJSONIsAsDocumented(message: Message, json: String) throws {
        #expect(String(buffer: try message.frame().body) == json)
    }

    @Test func keysThatALaterVersionAddsAreIgnored() throws {
        let body = ByteBuffer(string: #"{"type":"credit","content":{"bytes":9,"colour":"red"},"more":1}"#)
        #expect(try Message(Frame(.control, body: body)) == .credit(Credit(bytes: 9)))
    }

    @Test(arguments: [
        "", "{", "[]", "{}", #"{"type":"dance"}"#, #"{"type":"credit"}"#, #"{"type":"credit","content":{"bytes":"9"}}"#,
        #"{"type":"lease","content":{}}"#, #"{"type":"credit","content":{"bytes":99999999999999999999}}"#,
        #"{"type":"cancel","content":{"job":"xyz","reason":""}}"#, "\u{0}",
    ])
    func nonsenseIsRefused(text: String) {
        let error = #expect(throws: TesseraError.self) { try Message(Frame(.control, body: ByteBuffer(string: text))) }
        #expect(error?.code == .protocolMismatch)
    }

    @Test(arguments: [
        "", "0", String(repeating: "0", count: 31), String(repeating: "0", count: 33), "+" + String(repeating: "0", count: 31),
    ])
    func otherTextIsNoJob(text: String) { #expect(JobID(text) == nil) }

    @Test func jobsSurviveTheirText() {
        let id = JobID.random()
        #expect(JobID("\(id)") == id)
        #expect("\(JobID(high: 1, low: 0xab))" == "000000000000000100000000000000ab")
    }

    @Test(arguments: [("127.0.0.1:7070", "127.0.0.1", 7070), ("[::1]:0", "::1", 0), ("host:65535", "host", 65535)])
    func addresses(text: String, host: String, port: Int) {
        #expect(HostPort(text) == HostPort(host: host, port: port))
        #expect(HostPort(text).map { "\($0)" } == text)
    }

    @Test(arguments: ["", "host", ":1", "host:", "host:65536", "host:-1", "http://host:7070", "me@host:1", "a b:1"])
    func otherTextIsNoAddress(text: String) { #expect(HostPort(text) == nil) }

    @Test(arguments: [
        ("127.0.0.1", "the port is missing; write 127.0.0.1:PORT"), ("[::1]", "the port is missing; write [::1]:PORT"),
        (":7070", "the host is missing; write HOST:7070"), ("http://h:1", "an address is no URL; write HOST:PORT"),
        ("h:99999", "the port '99999' is not a number from 1 to 65535; write HOST:PORT"),
        ("h:0", "the port '0' is not a number from 1 to 65535; write HOST:PORT"),
        ("h:", "the port '' is not a number from 1 to 65535; write HOST:PORT"),
        ("h:+1", "the port '+1' is not a number from 1 to 65535; write HOST:PORT"),
        ("::1", "an IPv6 address stands in brackets; write [ADDRESS]:PORT"),
        ("[::1:7070", "the ']' is missing; write [ADDRESS]:PORT"),
        ("h:1/x", "an address has no '/', '@' or space; write HOST:PORT"),
    ])
    func anAddressThatIsNoneIsExplained(text: String, words: String) {
        #expect(throws: TesseraError(.usage, words)) { try HostPort(parsing: text, ports: 1...65535) }
    }

    @Test func errorsNameThePeerOnce() {
        let head = HostPort(host: "head", port: 7070)
        for (problem, named) in [
            ("the peer speaks TLS", "head:7070 speaks TLS"), ("the peer's certificate", "head:7070's certificate"),
            ("the coordinator did not answer", "the coordinator head:7070 did not answer"), ("the peers", "the peers"),
        ] {
            let error = TesseraError(.unreachable, problem).about(head)
            #expect(error.problem == named && error.about(head).problem == named)
        }
    }
}

extension TreeDigest {
    fileprivate static let example: Digest = {
        guard let digest = Digest(bytes: [UInt8](repeating: 0xab, count: Digest.byteCount)) else {
            preconditionFailure("32 bytes are a digest")
        }
        return digest
    }()
}
