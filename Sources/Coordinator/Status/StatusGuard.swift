import Core
import HTTPTypes
import Hummingbird
import NIOCore
import Protocol

/// Refuses requests to the status port that no operator of ours makes.
struct StatusGuard<Context: RequestContext>: RouterMiddleware {
    /// Names, beside addresses and `localhost`, under which the port is known.
    let hosts: Set<String>
    /// `nil` where no token is needed.
    let tokens: AccessTokens?

    /// Probes need no token, and say nothing about jobs.
    private static var openPaths: Set<String> { ["/healthz", "/readyz"] }

    @concurrent func handle(
        _ request: Request, context: Context, next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        // A page of another site can make a browser ask here under a name of that site, which then has the answer.
        guard Self.isKnown(request.head.authority, hosts) else {
            throw HTTPError(.misdirectedRequest, message: "this host name is unknown here; use an address, or --status-host NAME")
        }
        if let tokens, !Self.openPaths.contains(request.uri.path) {
            guard try Self.peer(request, tokens) != nil else {
                throw HTTPError(
                    .unauthorized, headers: [.wwwAuthenticate: "Bearer realm=\"tessera\""], message: "a token is needed")
            }
        }
        return try await next(request, context)
    }

    /// Whether a `Host` header names an address, `localhost`, or one of the names.
    static func isKnown(_ authority: String?, _ hosts: Set<String>) -> Bool {
        // HTTP/1.0 has no such header, and no browser speaks it.
        guard let authority else { return true }
        // A port behind the host.
        let host = HostPort(authority)?.host ?? String(authority.drop { $0 == "[" }.prefix { $0 != "]" })
        if (try? SocketAddress(ipAddress: host, port: 0)) != nil { return true }
        return hosts.contains(host.lowercased()) || host.lowercased() == "localhost"
    }

    private static func peer(_ request: Request, _ tokens: AccessTokens) throws -> PeerIdentity? {
        let scheme = "bearer "
        guard let header = request.headers[.authorization], header.lowercased().hasPrefix(scheme),
            let token = AccessToken(String(header.dropFirst(scheme.count)))
        else { return nil }
        return try tokens.identify(token)
    }
}
