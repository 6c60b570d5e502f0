import Core
import Protocol
import Testing

/// Who may do what at the job port.
@Suite struct AccessTests {
    private static let secret = "0123456789abcdef0123456789abcdef"

    private func token(_ text: String) throws -> AccessToken { try #require(AccessToken(text)) }

    @Test func aTokenFileGivesRoles() throws {
        let tokens = try AccessTokens(
            parsing: "# ours\n\nworker \(Self.secret)-w\nsubmitter,viewer \(Self.secret)-s\n\(Self.secret)-all\n", path: "t")
        #expect(try tokens.identify(token("\(Self.secret)-w"))?.roles == [.worker])
        #expect(try tokens.identify(token("\(Self.secret)-s"))?.roles == [.submitter, .viewer])
        #expect(try tokens.identify(token("\(Self.secret)-all"))?.roles == Set(AccessRole.allCases))
        #expect(try tokens.identify(token(Self.secret)) == nil)
    }

    @Test(arguments: [
        ("", 0, "holds no token"), ("# nothing\n", 0, "holds no token"), ("short", 1, "printable ASCII"),
        ("\nmaster \(secret)", 2, "unknown role"), ("a b c \(secret)", 1, "'[NAME] ROLE[,ROLE...] TOKEN'"),
        ("viewer \(secret)\nworker \(secret)", 2, "an earlier line"), ("a b \(secret)", 1, "unknown role"),
        ("a'b viewer \(secret)", 1, "ASCII letters"),
        ("submitter \(secret)-1\nsubmitter,viewer \(secret)-2", 0, "2 tokens of submitters have no name"),
    ])
    func badTokenFilesAreRefusedWithoutShowingTheToken(text: String, line: Int, words: String) {
        #expect {
            try AccessTokens(parsing: text, path: "tokens")
        } throws: { error in
            let text = "\(error)"
            return text.contains(words) && (line == 0 || text.contains("tokens:\(line)")) && !text.contains(Self.secret)
        }
    }

    @Test func aTokensNameOwnsTheJobsOfItsHolders() throws {
        let tokens = try AccessTokens(
            parsing: "al.ice submitter \(Self.secret)-1\nal.ice viewer \(Self.secret)-2\nsubmitter \(Self.secret)-3\n"
                + "\(Self.secret)-4\n", path: "t")
        let peers = try (1...4).map { try tokens.identify(token("\(Self.secret)-\($0)")) }
        #expect(peers.map { $0?.owner } == ["token:al.ice", "token:al.ice", "token without name", "token without name"])
        #expect(peers[0]?.name == "al.ice" && peers[0]?.title == "'al.ice'")
        #expect(peers[2]?.name == "token on line 3" && peers[2]?.title == "the holder of the token on line 3")
    }

    /// What a peer with a role may do to a job of its own, of others, and of a version without owners.
    @Test(arguments: [
        (AccessRole.worker, [false, false, false], [false, false, false], false),
        (.viewer, [false, false, false], [true, true, true], false),
        (.submitter, [true, false, false], [true, false, false], false),
        (.operator, [true, true, true], [true, true, true], true),
    ])
    func ownershipDecidesAboutJobs(role: AccessRole, changes: [Bool], sees: [Bool], takesUpOldJobs: Bool) {
        let peer = PeerIdentity(name: "x", roles: [role], owner: "x"), owners = ["x", "y", PeerIdentity.unknownOwner]
        #expect(owners.map(peer.mayChangeJobs) == changes && owners.map(peer.maySeeJobs) == sees)
        #expect(owners.map(peer.resubmitsJobs) == [true, false, takesUpOldJobs])
    }

    @Test func aTokenIsNeverShown() throws {
        let hello = Hello(role: .client, build: "1", name: "n", token: try token(Self.secret))
        for text in ["\(hello)", String(reflecting: hello), "\(Message.hello(hello))"] { #expect(!text.contains(Self.secret)) }
    }

    // MARK: Sessions

    private func session(_ access: AccessPolicy) -> CoordinatorSession {
        var session = CoordinatorSession(number: 1, build: "1", at: .zero)
        session.admit(by: access)
        return session
    }

    private func hello(_ role: Hello.Role, token: AccessToken? = nil) -> Message {
        .hello(Hello(role: role, build: "1", name: "n", threads: role == .worker ? 1 : 0, memory: 1, token: token))
    }

    private func refusal(_ actions: [CoordinatorSession.Action]) -> TesseraError? {
        guard case .send(.refusal(let refusal))? = actions.first, case .close? = actions.last else { return nil }
        return refusal.error
    }

    @Test(arguments: AccessRole.allCases)
    func rolesDecideWhoConnectsAs(role: AccessRole) {
        let access = AccessPolicy.certificate(PeerIdentity(name: "x", roles: [role], owner: "x"))
        var asWorker = session(access), asClient = session(access)
        let worker = refusal(asWorker.received(hello(.worker), at: .zero))
        let client = refusal(asClient.received(hello(.client), at: .zero))
        #expect((worker == nil) == (role == .worker))
        #expect((client == nil) == (role != .worker))
        for error in [worker, client].compactMap({ $0 }) {
            #expect(error.code == .notAllowed && error.problem.contains("'x' has the role \(role.rawValue) and may not"))
        }
    }

    @Test(arguments: [
        (AccessRole.viewer, false, false), (.submitter, true, true), (.operator, true, true),
    ])
    func rolesDecideWhatAClientMayAsk(role: AccessRole, submits: Bool, cancels: Bool) {
        let peer = PeerIdentity(name: "x", roles: [role], owner: "x")
        var session = session(.certificate(peer))
        _ = session.received(hello(.client), at: .zero)
        func isPassedOn(_ message: Message) -> Bool { session.received(message, at: .zero) == [.request(message, of: peer)] }
        #expect(isPassedOn(.statusRequest(StatusRequest())))
        #expect(
            isPassedOn(.submit(Submit(recipe: "", recipeName: "", workingDirectory: "/", output: "o", options: JobOptions())))
                == submits)
        #expect(isPassedOn(.cancel(Cancel(job: JobID(high: 1, low: 1), reason: ""))) == cancels)
    }

    @Test func tokensAdmitTheirHolders() throws {
        let access = AccessPolicy.tokens(try AccessTokens(parsing: "worker \(Self.secret)", path: "t"))
        var holder = session(access), stranger = session(access), nobody = session(access)
        #expect(refusal(holder.received(hello(.worker, token: try token(Self.secret)), at: .zero)) == nil)
        let unknown = refusal(stranger.received(hello(.worker, token: try token("\(Self.secret)x")), at: .zero))
        #expect(unknown?.code == .notAllowed && unknown?.problem.contains("not one of the coordinator's") == true)
        #expect(refusal(nobody.received(hello(.worker), at: .zero))?.problem.contains("sent no token") == true)
    }

    // MARK: Other tokens

    @Test func changesOfTokensAreNamed() throws {
        func tokens(_ text: String) throws -> AccessTokens { try AccessTokens(parsing: text, path: "t") }
        let before = try tokens("ann submitter \(Self.secret)-a\nworker \(Self.secret)-w\n")
        // The same tokens on other lines are no change.
        #expect(try tokens("# ours\nworker \(Self.secret)-w\nann submitter \(Self.secret)-a\n").changes(since: before) == nil)
        let after = try tokens("ann submitter \(Self.secret)-b\nworker \(Self.secret)-w\n").changes(since: before)
        #expect(after == AccessTokens.Changes(added: ["ann"], removed: ["ann"]))
        let fewer = try tokens("ann viewer \(Self.secret)-a\n").changes(since: before)
        #expect(fewer == AccessTokens.Changes(added: ["ann"], removed: ["ann", "token on line 2"]))
    }

    /// Whoever was admitted by a token that is removed, or has other roles now, is sent away; others stay.
    @Test(arguments: [
        ("worker \(secret)-w", false, true), ("ann viewer \(secret)-a\nworker \(secret)-w", false, true),
        ("eve submitter \(secret)-a\nworker \(secret)-w", false, true),
        ("# moved\nworker \(secret)-w\nann submitter \(secret)-a", true, true), ("ann submitter \(secret)-a", true, false),
    ])
    func peersOfRemovedTokensAreSentAway(text: String, keepsClient: Bool, keepsWorker: Bool) throws {
        let before = try AccessTokens(parsing: "ann submitter \(Self.secret)-a\nworker \(Self.secret)-w", path: "t")
        let after = AccessPolicy.tokens(try AccessTokens(parsing: text, path: "t"))
        var client = session(.tokens(before)), worker = session(.tokens(before)), stranger = session(.tokens(before))
        _ = client.received(hello(.client, token: try token("\(Self.secret)-a")), at: .zero)
        _ = worker.received(hello(.worker, token: try token("\(Self.secret)-w")), at: .zero)
        func stays(_ actions: [CoordinatorSession.Action]) -> Bool {
            guard case .close(let reason)? = actions.first else { return actions.isEmpty }
            return !reason.contains("token")
        }
        #expect(stays(client.admits(by: after)) == keepsClient && stays(worker.admits(by: after)) == keepsWorker)
        // One that has not said hello yet is admitted by the new tokens.
        #expect(stranger.admits(by: after).isEmpty)
        let late = refusal(stranger.received(hello(.worker, token: try token("\(Self.secret)-w")), at: .zero))
        #expect((late == nil) == keepsWorker)
    }
}
