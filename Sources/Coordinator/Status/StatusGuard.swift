import Core
import HTTPTypes
import Hummingbird
import NIOCore
import Protocol
import Transport

/// A request to the status port, and who sent it.
struct StatusContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    /// The connection that the request came on.
    let channel: any Channel
    /// Nobody, before `StatusGuard` has looked.
    var peer = PeerIdentity.withoutCertificate
    /// Whether the request would be answered now as well: for answers that go on for long.
    var isStillAdmitted: @Sendable () -> Bool = { true }

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}

/// Learns who sends a request to the status port, and refuses requests that none of our users make.
struct StatusGuard: RouterMiddleware {
    /// Names, beside addresses and `localhost`, under which the port is known.
    let hosts: Set<String>
    let security: JobPortSecurity
    let refusals: RefusalLog

    /// Probes, the page and the description need neither a token nor a role, and say nothing about jobs.
    private static let openPaths: Set<String> = ["/", "/healthz", "/openapi.json", "/readyz"]

    @concurrent func handle(
        _ request: Request, context: StatusContext, next: @concurrent (Request, StatusContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await answer(request, context: context, next: next)
        } catch let error as HTTPError {
            return try ProblemDocument(error).response()
        }
    }

    @concurrent private func answer(
        _ request: Request, context: StatusContext, next: @concurrent (Request, StatusContext) async throws -> Response
    ) async throws -> Response {
        // A page of another site can make a browser ask here under a name of that site, which then has the answer.
        guard Self.isKnown(request.head.authority, hosts) else {
            note(request, context, "the host name '\(request.head.authority ?? "")' is unknown here")
            throw HTTPError(.misdirectedRequest, message: "this host name is unknown here; use an address, or --status-host NAME")
        }
        guard [.get, .head].contains(request.method) else {
            throw HTTPError(
                .methodNotAllowed, headers: [.allow: "GET, HEAD"],
                message: "this port only shows; 'tessera submit' and 'cancel' change")
        }
        guard !Self.openPaths.contains(request.uri.path) else { return try await next(request, context) }
        var context = context
        context.peer = try await peer(of: request, context)
        if case .tokens(let tokens, _) = security, let header = request.headers[.authorization] {
            let roles = context.peer.roles
            context.isStillAdmitted = { (try? Self.peer(header, tokens.current))?.roles == roles }
        }
        do throws(TesseraError) {
            try context.peer.require(.submitter, .operator, .viewer, to: "read the status")
        } catch {
            note(request, context, error.problem, name: context.peer.name)
            throw HTTPError(.forbidden, message: error.problem)
        }
        return try await next(request, context)
    }

    /// Nothing that is not there is noted: the page asks without a token at first.
    private func note(_ request: Request, _ context: StatusContext, _ reason: String, name: String? = nil) {
        refusals.note(
            .request, address: context.channel.remoteAddress?.ipAddress, name: name, asked: "for \(request.uri.path)",
            reason: reason)
    }

    private func peer(of request: Request, _ context: StatusContext) async throws -> PeerIdentity {
        switch security {
        case .open: return .anyone
        case .certificates(let tls): return try await tls.peer(of: context.channel) ?? .withoutCertificate
        case .tokens(let tokens, _):
            guard let header = request.headers[.authorization] else { throw Self.unauthorized("a token is needed") }
            guard let peer = try Self.peer(header, tokens.current) else {
                note(request, context, "the token is not one of the coordinator's")
                throw Self.unauthorized("this token was refused")
            }
            return peer
        }
    }

    /// Whether a `Host` header names an address, `localhost`, or one of the names.
    static func isKnown(_ authority: String?, _ hosts: Set<String>) -> Bool {
        // HTTP/1.0 has no such header, and no browser speaks it. Later versions do not come here without one.
        guard let authority else { return true }
        // A port behind the host.
        let host = HostPort(authority)?.host ?? String(authority.drop { $0 == "[" }.prefix { $0 != "]" })
        if (try? SocketAddress(ipAddress: host, port: 0)) != nil { return true }
        return hosts.contains(host.lowercased()) || host.lowercased() == "localhost"
    }

    /// RFC 6750, section 3.
    private static func unauthorized(_ problem: String) -> HTTPError {
        HTTPError(.unauthorized, headers: [.wwwAuthenticate: "Bearer realm=\"tessera\""], message: problem)
    }

    /// - Returns: `nil` for a token that is none of the coordinator's.
    private static func peer(_ header: String, _ tokens: AccessTokens) throws -> PeerIdentity? {
        let scheme = "bearer "
        guard header.lowercased().hasPrefix(scheme), let token = AccessToken(String(header.dropFirst(scheme.count))) else {
            return nil
        }
        return try tokens.identify(token)
    }
}
