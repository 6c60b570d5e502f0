import Core
import Foundation
import Logging
import Protocol
import ServiceLifecycle
import Synchronization
import TestSupport
import Testing
import Transport
import Work

@testable import Coordinator

/// The status port over TLS.
@Suite struct StatusPortTests {
    private let jobs: TestJobs
    private let manager: JobManager
    private let certificates: Certificates

    init() throws {
        jobs = try TestJobs()
        manager = JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 1), log: .silent, outputs: MemoryOutputStore())
        certificates = try Certificates()
    }

    private func serverTLS(_ certificates: Certificates, authority: Bool = true) throws -> ServerTLS {
        try ServerTLS(
            files: TLSFiles(certificate: certificates.path("127.0.0.1.pem"), key: certificates.path("127.0.0.1.key")),
            authority: authority ? certificates.path("ca.pem") : nil)
    }

    /// The tokens of a file with this text.
    private func tokens(_ text: String) throws -> ServerTokens {
        let path = try certificates.directory.write(text, to: "tokens")
        chmod(path, 0o600)
        return try ServerTokens(path: path)
    }

    private struct Job: Decodable {
        let id: JobID
        let output, submittedAt: String
    }

    /// Opens the port while `body` runs.
    private func serving(_ security: JobPortSecurity, _ body: (String) async throws -> Void) async throws {
        let address = Mutex<HostPort?>(nil)
        let service = try StatusPort.service(
            manager: manager, address: HostPort(host: "127.0.0.1", port: 0), security: security, log: .silent,
            onListening: { found in address.withLock { $0 = found } })
        let running = Task { try await service.run() }
        defer { running.cancel() }
        try await eventually("the port") { address.withLock { $0 } != nil }
        try await body("\(try #require(address.withLock { $0 }))")
    }

    private func request(_ address: String, as name: String) -> SecureRequest {
        SecureRequest(
            to: address, authority: certificates.path("ca.pem"),
            own: (certificates.path("\(name).pem"), certificates.path("\(name).key")))
    }

    @Test func certificatesDecideWhatIsSeen() async throws {
        let owner = "spiffe://tessera/tessera/submitter"
        let peer = PeerIdentity(name: "x", roles: [.submitter], owner: owner)
        let mine = try await manager.submit(jobs.submission(output: "/mine"), by: peer).job
        let other = try await manager.submit(jobs.submission(output: "/other"), by: .anyone).job
        try await serving(.certificates(try serverTLS(certificates))) { address in
            for (name, outputs) in [
                ("submitter", ["/mine", ""]), ("viewer", ["/mine", "/other"]), ("operator", ["/mine", "/other"]),
            ] {
                let answer = try await request(address, as: name).get("/api/v1/jobs")
                let jobs = try JSONDecoder().decode([Job].self, from: Data(answer.body.utf8))
                #expect(jobs.map(\.output) == outputs && jobs.map(\.id) == [mine, other], "\(name)")
                #expect(jobs.allSatisfy { $0.submittedAt.hasPrefix("20") && $0.submittedAt.hasSuffix("Z") })
                let plan = try await request(address, as: name).get("/api/v1/jobs/\(other)/plan")
                #expect(plan.status == (outputs[1].isEmpty ? 404 : 200), "\(name)")
                let shard = try await request(address, as: name).get("/api/v1/jobs/\(other)/shards/0")
                #expect(shard.status == (outputs[1].isEmpty ? 404 : 200), "\(name)")
                let job = try await request(address, as: name).get("/api/v1/jobs/\(other)")
                #expect(try JSONDecoder().decode(Job.self, from: Data(job.body.utf8)).output == outputs[1], "\(name)")
            }
            // A worker learns nothing about jobs from the status port.
            let worker = try await request(address, as: "127.0.0.1").get("/api/v1/jobs")
            #expect(worker.status == 403 && worker.body.contains("has the role worker and may not read the status"))
            #expect(try await request(address, as: "127.0.0.1").get("/healthz").status == 200)
            // Probes, as Kubernetes makes them, have no certificate.
            let nobody = SecureRequest(to: address, authority: certificates.path("ca.pem"))
            for path in ["/healthz", "/readyz"] { #expect(try await nobody.get(path).status == 200) }
            for path in ["/api/v1/jobs", "/api/v1/jobs/\(mine)", "/api/v1/workers"] {
                let answer = try await nobody.get(path)
                #expect(answer.status == 403 && !answer.body.contains("/mine"), "\(path): \(answer)")
            }
            // A certificate of another authority is worse than none.
            let others = try Certificates()
            let stranger = SecureRequest(
                to: address, authority: certificates.path("ca.pem"),
                own: (others.path("viewer.pem"), others.path("viewer.key")))
            #expect(try await stranger.get("/healthz").status == 0)
        }
    }

    @Test func tokensDecideWhatIsSeen() async throws {
        let secret = "0123456789abcdef0123456789abcdef"
        let tokens = try tokens("worker \(secret)-w\nal submitter \(secret)-s\nviewer \(secret)-v\n")
        _ = try await manager.submit(jobs.submission(), by: .anyone)
        try await serving(.tokens(tokens, try serverTLS(certificates, authority: false))) { address in
            let client = SecureRequest(to: address, authority: certificates.path("ca.pem"))
            for (token, status, shows) in [("-w", 403, false), ("-s", 200, false), ("-v", 200, true), ("-x", 401, false)] {
                let answer = try await client.get("/api/v1/jobs", headers: ["Authorization: Bearer \(secret)\(token)"])
                #expect(answer.status == status && answer.body.contains("/out") == shows, "\(token): \(answer)")
            }
            let none = try await client.get("/api/v1/jobs")
            #expect(none.status == 401 && none.body.contains("a token is needed"))
            for refused in ["Bearer \(secret)-x", "Bearer short", "Basic \(secret)-v"] {
                let answer = try await client.get("/api/v1/jobs", headers: ["Authorization: \(refused)"])
                #expect(answer.status == 401 && answer.body.contains("this token was refused"), "\(answer)")
            }
            #expect(try await client.get("/api/v1/events").status == 401)
            #expect(try await client.get("/readyz").status == 200)
            // The page knows nothing before it is given a token.
            let page = try await client.get("/")
            #expect(page.status == 200 && page.body.contains("<title>Tessera</title>") && !page.body.contains("/out"))
            // A token that is removed is none from then on.
            let viewer = ["Authorization: Bearer \(secret)-v"]
            _ = try self.tokens("al submitter \(secret)-s\n")
            #expect(try await client.get("/api/v1/jobs", headers: viewer).status == 200)
            #expect(try tokens.reload() != nil)
            #expect(try await client.get("/api/v1/jobs", headers: viewer).status == 401)
        }
    }

    /// The port serves new certificates as soon as the job port does.
    @Test func newCertificatesAreTakenIntoUse() async throws {
        let next = try Certificates(), tls = try serverTLS(certificates, authority: false)
        let tokens = try tokens("0123456789abcdef")
        try await serving(.tokens(tokens, tls)) { address in
            let before = SecureRequest(to: address, authority: certificates.path("ca.pem"))
            let after = SecureRequest(to: address, authority: next.path("ca.pem"))
            #expect(try await before.get("/healthz").status == 200)
            #expect(try await after.get("/healthz").status == 0)
            for name in ["127.0.0.1.pem", "127.0.0.1.key"] {
                try FileManager.default.removeItem(atPath: certificates.path(name))
                try FileManager.default.copyItem(atPath: next.path(name), toPath: certificates.path(name))
            }
            #expect(try tls.reload())
            #expect(try await before.get("/healthz").status == 0)
            #expect(try await after.get("/healthz").status == 200)
        }
    }
}
