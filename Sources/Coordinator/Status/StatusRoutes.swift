import Core
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore
import Protocol

/// What the status port answers to which path. openapi.json describes it for programs.
struct StatusRoutes {
    let manager: JobManager
    private let readers = EventReaders()

    init(manager: JobManager) { self.manager = manager }

    func router(_ access: StatusGuard) throws -> Router<StatusContext> {
        let router = Router(context: StatusContext.self, options: .autoGenerateHeadEndpoints), page = try StatusPage.response()
        router.add(middleware: access)
        router.get("/") { _, _ in page }
        // The process is alive; says nothing about jobs, so that nobody restarts it over them.
        router.get("healthz") { _, _ in "ok\n" }
        router.get("readyz") { [manager] _, _ in
            guard await manager.takesJobs else { throw HTTPError(.serviceUnavailable, message: "draining") }
            return "ready\n"
        }
        let description = StatusPage.description()
        router.get("openapi.json") { _, _ in description }
        router.get("metrics") { [manager, readers] _, _ in
            let text = await manager.metrics().text(process: ProcessUsage.current(), eventReaders: readers.count)
            return Response(
                status: .ok, headers: [.contentType: MetricsText.contentType, .cacheControl: "no-store"],
                body: .init(byteBuffer: ByteBuffer(string: text)))
        }
        let api = router.group("api/v1")
        api.get("coordinator") { [manager] _, _ in JSONResponse(manager.about) }
        addJobs(to: api)
        api.get("workers") { [manager] request, context in
            let page = try Self.page(of: request)
            let status = await manager.status(StatusRequest(workersAfter: page.after ?? 0), for: context.peer)
            return JSONResponse(status?.workers ?? [], next: status?.nextWorkers)
        }
        api.get("events") { [readers] request, context in
            var watched: JobID?
            if let text = request.uri.queryParameters["job"] {
                watched = try await job(String(text), for: context.peer)
            }
            guard let place = readers.place() else {
                throw HTTPError(
                    .serviceUnavailable, headers: [.retryAfter: "10"],
                    message: "\(EventReaders.limit) readers follow the events already, as many as may at once")
            }
            return EventStream(
                manager: manager, peer: context.peer, isAdmitted: context.isStillAdmitted, watched: watched, place: place
            ).response
        }
        return router
    }

    private func addJobs(to api: RouterGroup<StatusContext>) {
        api.get("jobs") { [manager] request, context in
            let page = try Self.page(of: request)
            let status = await manager.status(StatusRequest(after: page.after, limit: page.limit), for: context.peer)
            return JSONResponse(
                status?.jobs.map(JobDocument.init) ?? [], total: status?.total, next: status?.next, limit: page.limit)
        }
        api.get("jobs/{id}") { request, context in
            let page = try Self.page(of: request), id = try await job(of: context)
            guard
                let status = await manager.status(
                    StatusRequest(job: id, after: page.after, limit: page.limit), for: context.peer),
                let job = status.jobs.first
            else { throw Self.noSuchJob }
            return JSONResponse(JobDocument(job), total: status.total, next: status.next, limit: page.limit)
        }
        api.get("jobs/{id}/plan") { _, context in
            let id = try await job(of: context)
            guard let plan = await manager.plan(of: id, for: context.peer) else { throw await lack(of: id, context) }
            return JSONResponse(plan)
        }
        api.get("jobs/{id}/shards/{shard}") { _, context in
            let id = try await job(of: context)
            guard let index = context.parameters.get("shard", as: Int.self),
                let shard = await manager.shard(index, of: id, for: context.peer)
            else { throw await lack(of: id, context, or: "no such shard, or it belongs to a job of others") }
            return JSONResponse(shard)
        }
    }

    /// Why something of a job is not there.
    private func lack(
        of id: JobID, _ context: StatusContext, or other: String = "no such job, or it belongs to others"
    ) async -> HTTPError {
        HTTPError(.notFound, message: await manager.lack(of: id, for: context.peer) ?? other)
    }

    private static let noSuchJob = HTTPError(.notFound, message: "no such job; /api/v1/jobs lists them")

    private func job(of context: StatusContext) async throws -> JobID {
        guard let text = context.parameters.get("id") else { throw Self.noSuchJob }
        return try await job(text, for: context.peer)
    }

    /// - Parameter text: the id, or its beginning.
    private func job(_ text: String, for peer: PeerIdentity) async throws -> JobID {
        if let id = JobID(text) { return id }
        let found = await manager.status(StatusRequest(prefix: text), for: peer)
        guard !text.isEmpty, let first = found?.jobs.first else { throw Self.noSuchJob }
        let count = max(found?.total ?? 0, found?.jobs.count ?? 0)
        guard count == 1 else {
            throw HTTPError(.badRequest, message: "\(count) jobs begin with '\(text)'; give more of the id")
        }
        return first.id
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

/// A shard with the names of its tensors.
struct ShardDocument: Encodable, Sendable {
    let status: ShardStatus
    /// `nil` once the job has ended.
    let tensorNames: [String]?

    private enum Key: String, CodingKey { case tensorNames }

    func encode(to encoder: any Encoder) throws {
        try status.encode(to: encoder)
        var container = encoder.container(keyedBy: Key.self)
        try container.encodeIfPresent(tensorNames, forKey: .tensorNames)
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
        let body = try statusJSON(value, [.sortedKeys, .prettyPrinted]) + [UInt8(ascii: "\n")]
        var headers: HTTPFields = [.contentType: "application/json; charset=utf-8", .cacheControl: "no-store"]
        if let total, let name = HTTPField.Name("X-Total-Count") { headers[name] = "\(total)" }
        if let next, let name = HTTPField.Name("Link") {
            let limit = limit.map { "&limit=\($0)" } ?? ""
            headers[name] = "<\(request.uri.path)?after=\(next)\(limit)>; rel=\"next\""
        }
        return Response(status: .ok, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }
}

/// The JSON of the status port. Whatever terminal shows it, names in it move no cursor.
func statusJSON(_ value: some Encodable, _ formatting: JSONEncoder.OutputFormatting = []) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = formatting.union(.withoutEscapingSlashes)
    return Array(String(decoding: try encoder.encode(value), as: UTF8.self).printableJSON.utf8)
}
