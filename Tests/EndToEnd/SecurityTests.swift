import Foundation
import TestSupport
import Testing

/// Whole programs over TLS.
@Suite(.serialized) struct SecurityTests {
    private let certificates: Certificates
    private let directory: TemporaryDirectory

    init() throws {
        certificates = try Certificates()
        directory = try TemporaryDirectory()
    }

    private func credentials(_ name: String) -> [String] {
        [
            "--tls-ca", certificates.path("ca.pem"), "--tls-cert", certificates.path("\(name).pem"), "--tls-key",
            certificates.path("\(name).key"),
        ]
    }

    private func recipe() throws -> String {
        try directory.write(
            """
            merge_method: ties
            base_model: \(Repository.golden)/models/bf16/base
            models:
            - model: \(Repository.golden)/models/bf16/tune-0
              parameters: {weight: 0.4, density: 0.3}
            - model: \(Repository.golden)/models/bf16/tune-1
              parameters: {weight: 0.6, density: 0.5}
            """, to: "r.yml")
    }

    @Test func aJobOverTLSHasTheBytesOfALocalOne() async throws {
        let recipe = try recipe(), local = "\(directory.path)/local", remote = "\(directory.path)/remote"
        #expect(try await Tessera.run(["run", recipe, local]).exitCode == 0)
        let cluster = try await Cluster(
            workers: 2, coordinator: credentials("127.0.0.1"), worker: credentials("127.0.0.1"))
        let outcome = try await cluster.submit(recipe, remote, ["--wait"] + credentials("submitter"))
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles(remote) == outputFiles(local))
    }

    @Test func strangersAreRefusedAtBothEndsWithTheReason() async throws {
        let cluster = try await Cluster(coordinator: credentials("127.0.0.1"))
        let cases: [(what: String, arguments: [String], code: Int32, client: String, coordinator: String)] = [
            (
                "a worker with a viewer's certificate", ["worker"] + credentials("viewer"), 77, "has the role viewer",
                "has the role viewer"
            ),
            (
                "a submitter with a worker's", ["status"] + credentials("127.0.0.1"), 77, "has the role worker",
                "has the role worker"
            ),
            ("none", ["status", "--tls-ca", certificates.path("ca.pem")], 77, "demands a certificate", "has no certificate"),
            ("plaintext", ["status"], 76, "\(cluster.jobs) speaks TLS", "does not speak TLS"),
            ("a plaintext worker", ["worker"], 76, "\(cluster.jobs) speaks TLS", "does not speak TLS"),
        ]
        for test in cases {
            let outcome = try await Tessera.run(test.arguments + ["--coordinator", cluster.jobs])
            #expect(outcome.exitCode == test.code, "\(test.what): \(outcome.errors)")
            #expect(outcome.errors.contains(test.client), "\(test.what): \(outcome.errors)")
            try await eventually("'\(test.coordinator)' in the log") { cluster.coordinator.errors.contains(test.coordinator) }
        }
        let viewer = try await cluster.submit(try recipe(), "\(directory.path)/out", credentials("viewer"))
        #expect(viewer.exitCode == 77 && viewer.errors.contains("may not submit jobs"), "\(viewer.errors)")
        try await eventually("who asked for what") {
            cluster.coordinator.errors.split(separator: "\n").contains { line in
                let words = ["refused a request", "address=127.0.0.1", "to submit", "viewer", "/out"]
                return words.allSatisfy { line.contains($0) }
            }
        }
    }

    /// A client that expects TLS is told by a coordinator without TLS what is wrong, and does not take it for absent.
    @Test(arguments: ["status", "worker"])
    func aPlainCoordinatorTellsTLSPeers(command: String) async throws {
        let cluster = try await Cluster()
        let outcome = try await Tessera.run([command, "--coordinator", cluster.jobs] + credentials("127.0.0.1"))
        #expect(outcome.exitCode == 76 && outcome.errors.contains("\(cluster.jobs) does not speak TLS"), "\(outcome.errors)")
        try await eventually("the same in the log") {
            cluster.coordinator.errors.contains("refused a peer") && cluster.coordinator.errors.contains("the peer speaks TLS")
        }
    }

    @Test func tokensOverTLSAdmitTheirHolders() async throws {
        let secret = "0123456789abcdef0123456789abcdef"
        let tokens = try directory.write("worker \(secret)-w\nsubmitter \(secret)-s\n", to: "tokens")
        let worker = try directory.write("\(secret)-w\n", to: "w"), submitter = try directory.write("\(secret)-s\n", to: "s")
        let pin = ["--tls-pin", certificates.path("127.0.0.1.pem")]
        let start = [
            "--tls-cert", certificates.path("127.0.0.1.pem"), "--tls-key", certificates.path("127.0.0.1.key"), "--token", tokens,
        ]
        // Written with the default mode, which lets everybody read the file.
        let open = try await Tessera.run(["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"] + start)
        #expect(open.exitCode == 77 && open.errors.contains("chmod 600"), "\(open.errors)")
        for path in [tokens, worker, submitter] { chmod(path, 0o600) }

        let cluster = try await Cluster(workers: 1, coordinator: start, worker: pin + ["--token", worker])
        let outcome = try await cluster.submit(
            try recipe(), "\(directory.path)/out", ["--wait"] + pin + ["--token", submitter])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let wrong = try await cluster.submit(try recipe(), "\(directory.path)/out2", pin + ["--token", worker])
        #expect(wrong.exitCode == 77, "\(wrong.errors)")
        // The coordinator follows its file: new tokens are accepted, and those that are gone are not.
        try directory.write("worker \(secret)-w\nann viewer \(secret)-n\n", to: "tokens")
        chmod(tokens, 0o600)
        try await eventually("the new tokens") { cluster.coordinator.errors.contains("the token file has changed") }
        let removed = try await Tessera.run(["status", "--coordinator", cluster.jobs, "--token", submitter] + pin)
        #expect(removed.exitCode == 77 && removed.errors.contains("not one of the coordinator's"), "\(removed.errors)")
        let viewer = try directory.write("\(secret)-n\n", to: "n")
        chmod(viewer, 0o600)
        let added = try await Tessera.run(["status", "--coordinator", cluster.jobs, "--token", viewer] + pin)
        #expect(added.exitCode == 0, "\(added.errors)")
        #expect(!cluster.coordinator.errors.contains(secret) && !outcome.errors.contains(secret))
    }

    @Test func submittersCannotTouchEachOthersJobs() async throws {
        let secret = "0123456789abcdef0123456789abcdef"
        let tokens = try directory.write(
            "alice submitter \(secret)-a\nbob submitter \(secret)-b\noperator \(secret)-o\n", to: "tokens")
        var arguments: [String: [String]] = [:]
        chmod(tokens, 0o600)
        for name in ["a", "b", "o"] {
            let token = try directory.write("\(secret)-\(name)\n", to: name)
            chmod(token, 0o600)
            arguments[name] = ["--tls-pin", certificates.path("127.0.0.1.pem"), "--token", token]
        }
        let cluster = try await Cluster(coordinator: [
            "--tls-cert", certificates.path("127.0.0.1.pem"), "--tls-key", certificates.path("127.0.0.1.key"), "--token", tokens,
        ])
        func run(_ command: [String], as name: String) async throws -> Tessera.Outcome {
            try await Tessera.run(command + ["--coordinator", cluster.jobs] + (arguments[name] ?? []))
        }
        let recipe = try recipe(), out = "\(directory.path)/secret-output"
        let submitted = try await run(["submit", recipe, out], as: "a")
        #expect(submitted.exitCode == 0, "\(submitted.errors)")
        let id = String(submitted.output.prefix(32))
        let refused = try await run(["cancel", id], as: "b")
        #expect(refused.exitCode == 77 && refused.errors.contains("belongs to 'token:alice'"), "\(refused.errors)")
        try await eventually("who asked for what") {
            cluster.coordinator.errors.contains("refused a request") && cluster.coordinator.errors.contains("to cancel \(id)")
        }
        for (name, shows) in [("a", true), ("b", false), ("o", true)] {
            for command in [["status"], ["status", "--json"], ["status", id]] {
                let status = try await run(command, as: name)
                #expect(status.exitCode == 0 && status.output.contains("token:alice"), "\(name): \(status)")
                #expect(status.output.contains("secret-output") == shows, "\(name): \(status.output)")
            }
        }
        #expect(try await run(["cancel", id], as: "o").exitCode == 0)
        #expect(!cluster.coordinator.errors.contains(secret))
    }

    @Test func listeningBeyondLoopbackNeedsTLS() async throws {
        let refused = try await Tessera.run(["coordinator", "--listen", "0.0.0.0:0", "--status", "127.0.0.1:0"])
        #expect(refused.exitCode == 77 && refused.errors.contains("unencrypted"), "\(refused.errors)")
    }
}
