import FoundationEssentials
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
        router.get("api/v1/jobs") { _, _ in
            JSONResponse(await manager.status(StatusRequest())?.jobs ?? [])
        }
        router.get("api/v1/jobs/{id}") { _, context in
            guard let text = context.parameters.get("id"), let id = JobID(text),
                let job = await manager.status(StatusRequest(job: id))?.jobs.first
            else { throw HTTPError(.notFound, message: "no such job; /api/v1/jobs lists them") }
            return JSONResponse(job)
        }
        router.get("api/v1/workers") { _, _ in
            JSONResponse(await manager.status(StatusRequest())?.workers ?? [])
        }
        return router
    }
}

/// A value as pretty JSON with sorted keys.
private struct JSONResponse<Value: Encodable & Sendable>: ResponseGenerator {
    private let value: Value

    init(_ value: Value) { self.value = value }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        let body = Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
        return Response(
            status: .ok, headers: [.contentType: "application/json; charset=utf-8", .cacheControl: "no-store"],
            body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }
}
