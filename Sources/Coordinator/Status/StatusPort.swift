import FoundationEssentials
import HTTPTypes
import Hummingbird
package import Logging
import NIOCore
package import Protocol
package import ServiceLifecycle

/// The status port: HTTP for people and programs, read-only, apart from the job port.
package enum StatusPort {
    /// - Parameter onListening: told the address once the port is open.
    package static func service(
        manager: JobManager, address: HostPort, log: Logger, onListening: @escaping @Sendable (HostPort) -> Void
    ) -> any Service {
        Application(
            router: router(manager),
            configuration: ApplicationConfiguration(address: .hostname(address.host, port: address.port), serverName: "tessera"),
            onServerRunning: { channel in
                onListening(HostPort(host: address.host, port: channel.localAddress?.port ?? address.port))
            },
            logger: log)
    }

    private static func router(_ manager: JobManager) -> Router<BasicRequestContext> {
        let router = Router()
        // The process is alive; says nothing about jobs, so that nobody restarts it over them.
        router.get("healthz") { _, _ in "ok\n" }
        router.get("readyz") { _, _ in
            guard await manager.takesJobs else { throw HTTPError(.serviceUnavailable, message: "draining") }
            return "ready\n"
        }
        router.get("api/v1/jobs") { request, _ in
            let page = try page(of: request)
            let status = await manager.status(StatusRequest(after: page.after, limit: page.limit))
            return JSONResponse(status?.jobs ?? [], total: status?.total, next: status?.next, limit: page.limit)
        }
        router.get("api/v1/jobs/{id}") { request, context in
            let page = try page(of: request)
            guard let text = context.parameters.get("id"), let id = JobID(text),
                let status = await manager.status(StatusRequest(job: id, after: page.after, limit: page.limit)),
                let job = status.jobs.first
            else { throw HTTPError(.notFound, message: "no such job; /api/v1/jobs lists them") }
            return JSONResponse(job, total: status.total, next: status.next, limit: page.limit)
        }
        router.get("api/v1/workers") { request, _ in
            let page = try page(of: request)
            let status = await manager.status(StatusRequest(workersAfter: page.after ?? 0))
            return JSONResponse(status?.workers ?? [], next: status?.nextWorkers)
        }
        return router
    }

    /// What `after` and `limit` of the query say.
    private static func page(of request: Request) throws -> (after: Int?, limit: Int?) {
        func number(_ name: String) throws -> Int? {
            guard let text = request.uri.queryParameters[name[...]] else { return nil }
            guard let number = Int(text), number >= 0 else {
                throw HTTPError(.badRequest, message: "'\(name)' must be a whole number, not negative")
            }
            return number
        }
        return (try number("after"), try number("limit"))
    }
}

/// A value as pretty JSON with sorted keys. Headers say how many rows there are in all and where the next page begins.
private struct JSONResponse<Value: Encodable & Sendable>: ResponseGenerator {
    private let value: Value
    private let total: Int?
    private let next: Int?
    private let limit: Int?

    init(_ value: Value, total: Int? = nil, next: Int? = nil, limit: Int? = nil) {
        self.value = value
        self.total = total
        self.next = next
        self.limit = limit
    }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        let body = Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
        var headers: HTTPFields = [.contentType: "application/json; charset=utf-8", .cacheControl: "no-store"]
        if let total, let name = HTTPField.Name("X-Total-Count") { headers[name] = "\(total)" }
        if let next, let name = HTTPField.Name("Link") {
            let limit = limit.map { "&limit=\($0)" } ?? ""
            headers[name] = "<\(request.uri.path)?after=\(next)\(limit)>; rel=\"next\""
        }
        return Response(status: .ok, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }
}
