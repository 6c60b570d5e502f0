import Core
import Foundation
import Glibc
import NIOCore
import NIOPosix
import NIOSSL
import Protocol
import TestSupport
import Testing

@testable import Transport

/// Real handshakes on loopback.
@Suite(.timeLimit(.minutes(15))) struct TLSTests {
    private let certificates: Certificates

    init() throws { certificates = try Certificates() }

    private func files(_ name: String, of certificates: Certificates? = nil) -> TLSFiles {
        let certificates = certificates ?? self.certificates
        return TLSFiles(certificate: certificates.path("\(name).pem"), key: certificates.path("\(name).key"))
    }

    private func client(
        _ name: String?, of certificates: Certificates? = nil, trust: ClientTLS.Trust? = nil
    ) -> ClientTLS {
        ClientTLS(
            trust: trust ?? .authority(self.certificates.path("ca.pem")), files: name.map { files($0, of: certificates) })
    }

    /// What both sides say of one connection.
    private struct Meeting {
        var peer: PeerIdentity?
        var serverError: TesseraError?
        var clientError: TesseraError?
    }

    /// Connects once; the server answers one message by another.
    private func meet(_ client: ClientTLS?, server tls: ServerTLS?) async throws -> Meeting {
        let listener = try await Transport.listen(on: HostPort(host: "127.0.0.1", port: 0), tls: tls)
        let (meetings, input) = AsyncStream<Meeting>.makeStream()
        let server = Task {
            try await listener.serve { connection, _ in
                var meeting = Meeting()
                do throws(TesseraError) { meeting.peer = try await connection.peer() } catch { meeting.serverError = error }
                let refused = meeting.serverError != nil
                do {
                    try await connection.withFrames { frames in
                        for try await _ in frames where !refused {
                            try connection.send(.drain)
                            return
                        }
                    }
                } catch { meeting.serverError = meeting.serverError ?? TesseraError(wrapping: error) }
                input.yield(meeting)
            }
        }
        var clientError: TesseraError?
        do {
            let connection = try await Transport.connect(to: listener.address, tls: client, limits: .coordinator)
            try await connection.withFrames { frames in
                var frames = frames.makeAsyncIterator()
                try connection.send(.drain)
                let answer = try await frames.next()
                if answer == nil { throw TesseraError(.unreachable, "no answer") }
            }
        } catch let error as FrameError {
            clientError = error.asTesseraError(isGreeting: true)
        } catch {
            clientError = TesseraError(wrapping: error)
        }
        var meeting = await meetings.first { _ in true } ?? Meeting()
        meeting.clientError = clientError
        listener.close()
        server.cancel()
        _ = try? await server.value
        return meeting
    }

    private func server(authority: Bool = true) throws -> ServerTLS {
        try ServerTLS(files: files("127.0.0.1"), authority: authority ? certificates.path("ca.pem") : nil)
    }

    @Test(arguments: [
        ("127.0.0.1", AccessRole.worker), ("submitter", .submitter), ("operator", .operator), ("viewer", .viewer),
    ])
    func theNameInACertificateGivesItsRole(name: String, role: AccessRole) async throws {
        let meeting = try await meet(client(name), server: try server())
        #expect(meeting.clientError == nil && meeting.serverError == nil)
        #expect(meeting.peer?.roles == [role])
        #expect(meeting.peer?.name.hasPrefix("spiffe://tessera/tessera/\(role.rawValue)") == true)
    }

    @Test func aPinnedCertificateNeedsNoAuthority() async throws {
        let pinned = ClientTLS(trust: .pinned(certificates.path("127.0.0.1.pem")), files: nil)
        let meeting = try await meet(pinned, server: try server(authority: false))
        #expect(meeting.clientError == nil && meeting.serverError == nil && meeting.peer == nil)

        let other = ClientTLS(trust: .pinned(certificates.path("viewer.pem")), files: nil)
        let refused = try await meet(other, server: try server(authority: false))
        #expect(refused.clientError?.code == .notAllowed)
        #expect(refused.clientError?.problem.hasSuffix("'s certificate is not the one that --tls-pin names") == true)
    }

    @Test func aPeerWithoutACertificateIsToldToBringOne() async throws {
        let meeting = try await meet(client(nil), server: try server())
        #expect(meeting.clientError?.code == .notAllowed)
        #expect(meeting.clientError?.problem == "the peer demands a certificate")
        #expect(meeting.serverError?.problem == "the peer has no certificate")
    }

    @Test func certificatesOfAnotherAuthorityAreRefusedAtBothEnds() async throws {
        let others = try Certificates()
        let theirs = try await meet(client("viewer", of: others), server: try server())
        #expect(theirs.clientError?.code == .notAllowed)
        #expect(theirs.clientError?.problem.contains("not signed by the peer's authority") == true)
        #expect(theirs.serverError?.code == .notAllowed)
        #expect(theirs.serverError?.problem == "the peer's certificate is not signed by the authority in --tls-ca")

        let ours = try await meet(
            client("viewer", trust: .authority(others.path("ca.pem"))), server: try server())
        #expect(ours.clientError?.code == .notAllowed)
        #expect(ours.clientError?.problem.hasSuffix("'s certificate is not signed by the authority in --tls-ca") == true)
        #expect(ours.clientError?.problem.hasPrefix("127.0.0.1:") == true)
        #expect(ours.serverError?.problem.contains("not signed by the peer's authority") == true)
    }

    @Test func theCoordinatorsCertificateMustNameItsHost() async throws {
        let others = try Certificates(hosts: ["alpha"], authority: certificates)
        let tls = try ServerTLS(files: files("alpha", of: others), authority: certificates.path("ca.pem"))
        let meeting = try await meet(client("operator"), server: tls)
        #expect(meeting.clientError?.code == .notAllowed, "\(String(describing: meeting.clientError))")
        #expect(
            meeting.clientError?.problem.hasSuffix("'s certificate does not name the host '127.0.0.1', but 'alpha'") == true,
            "\(String(describing: meeting.clientError))")
    }

    /// A person's certificate proves no coordinator: one that has it is not started, and does not take it into use.
    @Test func aCoordinatorNeedsACertificateForServers() throws {
        let words = "the certificate is not for servers: its extended key usage lacks serverAuth"
        #expect(throws: TesseraError(.notAllowed, words, file: certificates.path("viewer.pem"), advice: "issue a new one")) {
            try ServerTLS(files: files("viewer"), authority: nil)
        }
        let tls = try server()
        for kind in ["pem", "key"] {
            try FileManager.default.removeItem(atPath: certificates.path("127.0.0.1.\(kind)"))
            try FileManager.default.copyItem(
                atPath: certificates.path("viewer.\(kind)"), toPath: certificates.path("127.0.0.1.\(kind)"))
        }
        let error = #expect(throws: TesseraError.self) { try tls.reload() }
        #expect(error?.problem == words && error?.file == certificates.path("127.0.0.1.pem"))
    }

    @Test func aCertificateForServersAloneProvesNoClient() throws {
        try certificates.signItself("server-only", usage: "serverAuth")
        #expect(try files("server-only").load(for: .server).chain.count == 1)
        let error = #expect(throws: TesseraError.self) { try files("server-only").load(for: .client) }
        #expect(error?.code == .notAllowed && error?.problem.contains("lacks clientAuth") == true)
    }

    /// The client's word for a coordinator of another make, or of an earlier version, that uses a person's certificate.
    @Test func aClientSaysWhatTheCoordinatorsCertificateLacks() async throws {
        let (chain, key) = try files("viewer").load(for: .client)
        let context = try NIOSSLContext(
            configuration: .makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key)))
        let port = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let address = HostPort(host: "127.0.0.1", port: port.localAddress?.port ?? 0)
        let error = await #expect(throws: TesseraError.self) {
            _ = try await Transport.connect(to: address, tls: client("operator"), limits: .coordinator)
        }
        #expect(error?.code == .notAllowed)
        #expect(
            error?.problem == "\(address)'s certificate is not for servers: its extended key usage lacks serverAuth",
            "\(String(describing: error))")
        try await port.close().get()
    }

    /// A name that leads to an address which the certificate names is not in the certificate for that.
    @Test func aNameIsNotProvedByItsAddress() throws {
        let local = try Certificates(hosts: ["--local", "127.0.0.1"], authority: certificates)
        let certificate = try #require(NIOSSLCertificate.fromPEMFile(local.path("127.0.0.1.pem")).first)
        #expect(certificate.names(host: "localhost") && certificate.names(host: "LocalHost."))
        for host in ["coordinator", "localhost.example.org", "127.0.0.1", ""] {
            #expect(!certificate.names(host: host), "\(host)")
        }
        let client = ClientTLS(trust: .authority(certificates.path("ca.pem")), files: nil)
        #expect(client.expects(of: "head.cluster") == .authority(host: "head.cluster"))
        #expect(!isIPAddress("head.cluster") && isIPAddress("127.0.0.1") && isIPAddress("::1"))
        #expect(certificate.hosts == ["127.0.0.1", "localhost", "127.0.0.1", "::1"])
    }

    /// Who has the key of one host is not taken for a coordinator at every other host's loopback.
    @Test func onlyLocalCertificatesNameLoopback() throws {
        let hosts = try Certificates(hosts: ["alpha", "beta"])
        func certificate(_ host: String) throws -> NIOSSLCertificate {
            try #require(NIOSSLCertificate.fromPEMFile(hosts.path("\(host).pem")).first)
        }
        let before = try certificate("beta")
        #expect(try !certificate("alpha").names(host: "localhost") && certificate("alpha").names(host: "alpha"))
        #expect(try certificate("alpha")._subjectAlternativeNames().count == 2)
        try hosts.add(["--local", "alpha", "beta"])
        #expect(try certificate("alpha").names(host: "localhost") && certificate("alpha").names(host: "alpha"))
        #expect(try certificate("beta") == before && !before.names(host: "localhost"))
        let local = try certificate("alpha")
        try hosts.add(["--local", "alpha"])
        #expect(try certificate("alpha") == local)
        #expect(throws: CocoaError.self) { try hosts.add(["alpha", "--local"]) }
    }

    @Test func anExpiredCertificateIsNamedWithItsDate() async throws {
        let expired = try Certificates(days: -1, authority: certificates)
        let error = try await meetingError(client("viewer", of: expired))
        #expect(error.code == .notAllowed && error.file == expired.path("viewer.pem"))
        #expect(error.problem.hasPrefix("the certificate expired on 20"))
        #expect(throws: TesseraError.self) { try ServerTLS(files: files("127.0.0.1", of: expired), authority: nil) }
    }

    private func meetingError(_ client: ClientTLS) async throws -> TesseraError {
        do throws(TesseraError) {
            _ = try await Transport.connect(to: HostPort(host: "127.0.0.1", port: 9), tls: client, limits: .coordinator)
        } catch {
            return error
        }
        throw TesseraError(.internal, "connected")
    }

    @Test func plainPeersOfATLSPortAndTLSPeersOfAPlainPortAreToldSo() async throws {
        let plain = try await meet(nil, server: try server())
        #expect(plain.clientError?.code == .protocolMismatch)
        #expect(plain.clientError?.problem == "the peer speaks TLS, this side does not")
        #expect(plain.serverError?.code == .protocolMismatch)
        #expect(plain.serverError?.problem == "the peer does not speak TLS: what it says is not encrypted")

        let tls = try await meet(client("viewer"), server: nil)
        #expect(tls.clientError?.problem.hasSuffix(" closed the connection during the TLS handshake") == true)
        #expect(tls.clientError?.problem.hasPrefix("127.0.0.1:") == true)
    }

    @Test func changedFilesAreTakenIntoUseAndBrokenOnesAreNot() async throws {
        let tls = try server()
        #expect(try !tls.reload())
        let renewed = try Certificates(hosts: ["127.0.0.1"], authority: certificates)
        for name in ["127.0.0.1.pem", "127.0.0.1.key"] {
            try FileManager.default.removeItem(atPath: certificates.path(name))
            try FileManager.default.copyItem(atPath: renewed.path(name), toPath: certificates.path(name))
        }
        #expect(try tls.reload())
        let pinned = ClientTLS(trust: .pinned(renewed.path("127.0.0.1.pem")), files: files("viewer"))
        #expect(try await meet(pinned, server: tls).clientError == nil)

        try certificates.directory.write("nonsense", to: "127.0.0.1.pem")
        #expect(throws: TesseraError(.badData, "holds no certificate in PEM format", file: certificates.path("127.0.0.1.pem"))) {
            try tls.reload()
        }
        #expect(try await meet(pinned, server: tls).clientError == nil)
    }

    @Test(arguments: ["operator", "ca"])
    func filesThatCannotBeUsedTogetherAreNamed(name: String) throws {
        // The authority's certificate and key are a pair, and the certificate is not for connections.
        let certificate = certificates.path(name == "ca" ? "ca.pem" : "viewer.pem"), key = certificates.path("\(name).key")
        let client = ClientTLS(
            trust: .authority(certificates.path("ca.pem")), files: TLSFiles(certificate: certificate, key: key))
        #expect {
            try client.prepare(for: "127.0.0.1")
        } throws: { error in
            let error = error as? TesseraError
            return error?.code == .badData && error?.file == certificate && error?.problem.contains(key) == true
        }
    }

    @Test func aKeyThatOthersCanReadIsRefused() throws {
        chmod(certificates.path("127.0.0.1.key"), 0o644)
        #expect {
            try server()
        } throws: { error in
            (error as? TesseraError)?.code == .notAllowed && "\(error)".contains("chmod 600")
        }
    }
}
