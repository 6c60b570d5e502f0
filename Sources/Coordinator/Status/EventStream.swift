import Core
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore
import Protocol
import ServiceLifecycle
import Synchronization

/// Jobs, workers and the shards of one job as server-sent events (HTML standard, section 9.2): everything at first, then twice a
/// second what has changed.
///
/// The next message is made when the one before has left, so a slow reader costs no more memory than a fast one. A reader that
/// comes again is told everything anew, and so misses nothing, whatever its `Last-Event-ID`.
actor EventStream {
    private let manager: JobManager
    private let peer: PeerIdentity
    private let isAdmitted: @Sendable () -> Bool
    private let watched: JobID?
    private let changes: Mutex<FeedChanges>
    private var listener: JobEventStream.Listener?
    /// Held until the stream ends.
    private let place: EventReaders.Place
    /// Messages that have not left yet.
    private var waiting: [ByteBuffer] = []
    private var hasBegun = false
    private var refreshed = Duration.zero
    private var wrote = Duration.zero
    /// Shards of the watched job that the reader has heard of, and names of their workers.
    private var rowsTold = 0
    private var namesTold = 0
    private var coordinatorTold: CoordinatorDocument?

    private static let turn = Duration.milliseconds(500)
    /// How often jobs that have not ended and workers are told of although nothing happened: rates and reasons change with time.
    private static let refresh = Duration.seconds(5)
    /// A sign of life at least so often, so that both ends find out when the other is gone.
    private static let silence = Duration.seconds(15)
    /// Rows of a message.
    private static let rowLimit = 2000

    /// - Parameter isAdmitted: whether the reader still may read; the stream ends once it may not.
    init(
        manager: JobManager, peer: PeerIdentity, isAdmitted: @escaping @Sendable () -> Bool = { true }, watched: JobID?,
        place: EventReaders.Place
    ) {
        self.manager = manager
        self.peer = peer
        self.isAdmitted = isAdmitted
        self.watched = watched
        self.place = place
        changes = Mutex(FeedChanges(watched: watched))
    }

    /// Made one by one, as they are taken.
    nonisolated var messages: AsyncStream<ByteBuffer> { AsyncStream { await self.next() } }

    nonisolated var response: Response {
        var headers: HTTPFields = [.contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-store"]
        // Proxies such as nginx pass each event on at once.
        if let name = HTTPField.Name("X-Accel-Buffering") { headers[name] = "no" }
        return Response(status: .ok, headers: headers, body: ResponseBody(asyncSequence: messages))
    }

    private nonisolated func note(_ event: JobEvent) { changes.withLock { $0.note(event) } }

    /// Waits for the next message. `nil` once the coordinator shuts down, or the reader may read no more.
    private func next() async -> ByteBuffer? {
        if !hasBegun {
            hasBegun = true
            // Before anything is told: what happens meanwhile is told next.
            listener = manager.events.listen { [weak self] in self?.note($0) }
            await tell()
        }
        while waiting.isEmpty {
            guard (try? await manager.time.sleep(Self.turn)) != nil, !Task.isShuttingDownGracefully, isAdmitted()
            else { return nil }
            await tell()
        }
        return waiting.removeFirst()
    }

    /// Makes the messages that are due.
    private func tell() async {
        let news = changes.withLock { $0.take() }, now = manager.time.now(), isDue = now - refreshed >= Self.refresh
        if news.isFresh {
            (rowsTold, namesTold) = (0, 0)
            coordinatorTold = manager.about
            add("snapshot", coordinatorTold)
            await tellAll()
        } else if isDue || !news.isEmpty {
            let status = await manager.news(of: news, refreshes: isDue, for: peer)
            add(status, left: news.leftWorkers.sorted())
        } else if now - wrote >= Self.silence {
            waiting.append(ByteBuffer(string: ": no news\n\n"))
        }
        // The job port may open after this one.
        if coordinatorTold != manager.about {
            coordinatorTold = manager.about
            add("coordinator", coordinatorTold)
        }
        if isDue || news.isFresh { refreshed = now }
        if let watched { await tellShards(of: watched, news) }
        if !waiting.isEmpty { wrote = now }
    }

    private func tellAll() async {
        var after: Int?, afterWorkers: Int?
        repeat {
            guard let status = await manager.status(StatusRequest(after: after), for: peer) else { return }
            add(status)
            if after == nil { afterWorkers = status.nextWorkers }
            after = status.next
        } while after != nil
        while let number = afterWorkers {
            guard let status = await manager.status(StatusRequest(workersAfter: number), for: peer) else { return }
            add(status)
            afterWorkers = status.nextWorkers
        }
    }

    private func tellShards(of job: JobID, _ news: FeedChanges) async {
        var left = news.shards.sorted()[...], first = 0
        let isWhole = news.isFresh || news.changesAllShards
        while isWhole || !left.isEmpty {
            let part = isWhole ? Array(first..<first + Self.rowLimit) : Array(left.prefix(Self.rowLimit))
            guard let rows = await manager.shardNews(of: job, part, rowsTold: rowsTold, namesTold: namesTold, for: peer)
            else { return }
            rowsTold = rows.firstNew + rows.new.count
            namesTold += rows.names.count
            add("shards", data: rows.json)
            left = left.dropFirst(part.count)
            first += Self.rowLimit
            if isWhole, first >= rows.total { return }
        }
    }

    // MARK: Messages

    /// Jobs and workers that have changed.
    private struct StatusNews: Encodable {
        let time: String
        let jobs: [JobDocument]
        let workers: [WorkerStatus]
        let left: [Int]
        /// All that are lost now; absent where that is told in another message.
        let lost: [LostWorker]?
        /// Absent while the coordinator takes jobs.
        let draining: Bool?
    }

    private func add(_ status: Status, left: [Int] = []) {
        add(
            "status",
            StatusNews(
                time: JobDocument.time(manager.time.wallClock()), jobs: status.jobs.map(JobDocument.init),
                workers: status.workers, left: left, lost: status.lostWorkers, draining: status.draining))
    }

    private func add(_ name: String, _ content: some Encodable) {
        // Numbers and texts: nothing that JSON does not have.
        if let data = try? statusJSON(content) { add(name, data: data) }
    }

    private func add(_ name: String, data: [UInt8]) {
        var buffer = ByteBuffer(string: "event: \(name)\ndata: ")
        buffer.writeBytes(data)
        buffer.writeString("\n\n")
        waiting.append(buffer)
    }
}

/// Counts the readers of event streams: each holds a connection of the status port for as long as it likes.
final class EventReaders: Sendable {
    /// Fewer than this host's own connections at the status port, so that probes find a place.
    static let limit = 24

    private let places = Mutex(0)

    var count: Int { places.withLock { $0 } }

    /// One reader's, until nobody holds it.
    final class Place: Sendable {
        private let readers: EventReaders

        fileprivate init(_ readers: EventReaders) { self.readers = readers }

        deinit { readers.places.withLock { $0 -= 1 } }
    }

    /// - Returns: `nil` when there are too many.
    func place() -> Place? {
        let isFree = places.withLock { count in
            guard count < Self.limit else { return false }
            count += 1
            return true
        }
        return isFree ? Place(self) : nil
    }
}
