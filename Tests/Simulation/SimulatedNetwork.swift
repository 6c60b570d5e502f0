import Core
import NIOCore
import NIOEmbedded
import Protocol
import Transport

/// Connections between simulated processes: bytes that take their time, in order, until somebody cuts, damages or holds them.
///
/// Each end is the product's own `Connection` on a channel without a socket, so frames, limits and orders are the real ones.
final class SimulatedNetwork: @unchecked Sendable {
    private enum Parcel {
        case bytes(ByteBuffer)
        case end
    }

    private final class End {
        /// `nil` for a peer that only sends what was recorded.
        let process: SimulatedProcess?
        let channel: EmbeddedChannel?
        /// Parcels for this end, in the order in which they arrive.
        var inbox: [Parcel] = []
        var lastArrival = Duration.zero
        /// Whether the other end has been told that this one is closed.
        var hasEnded = false

        init(_ process: SimulatedProcess?, _ channel: EmbeddedChannel?) {
            self.process = process
            self.channel = channel
        }

        var host: String { process?.name ?? "stranger" }
    }

    private final class Link {
        let client: End
        let server: End
        /// What happens to the next bytes from either end.
        var damage: Damage?
        var sent: [ByteBuffer] = []

        init(client: End, server: End) {
            self.client = client
            self.server = server
        }
    }

    enum Damage: CaseIterable { case flip, cut }

    /// Where connections are accepted; `nil` while nobody listens.
    var server: SimulatedProcess?
    var accept: (Connection) -> Void = { _ in }
    /// Seconds that bytes take at most when they are not lost on their way.
    var latency = 0.05
    /// Share of the bytes that are lost at first, and sent again after 0.2 to 6 s.
    var loss = 0.02
    /// What some connections sent, to be sent again by a stranger.
    private(set) var recordings: [[ByteBuffer]] = []
    private let simulation: Simulation
    private let loop = EmbeddedEventLoop()
    private var links: [Link] = []
    /// Until when no byte passes, from one host to another.
    private var blocked: [String: Duration] = [:]
    private var addresses: [String: Int] = [:]

    init(_ simulation: Simulation) { self.simulation = simulation }

    // MARK: Connecting

    private func channel(from host: String) throws -> EmbeddedChannel {
        let channel = EmbeddedChannel(loop: loop)
        let number = addresses[host] ?? addresses.count + 1
        addresses[host] = number
        channel.remoteAddress = try SocketAddress(ipAddress: "10.0.0.\(number)", port: 7070)
        return channel
    }

    private func open(_ end: End, limits: FrameLimits) throws -> Connection? {
        guard let channel = end.channel, let address = channel.remoteAddress else { return nil }
        let connection = try Connection(on: channel, limits: limits)
        channel.connect(to: address, promise: nil)
        return connection
    }

    /// - Throws: `unreachable` when nobody listens, or nothing comes through.
    func dial(from client: SimulatedProcess, limits: FrameLimits) async throws(TesseraError) -> Connection {
        do {
            try await client.rest(travelTime)
            guard let server, server.isAlive else { throw TesseraError(.unreachable, "nobody listens") }
            let isBlocked = [key(client.name, server.name), key(server.name, client.name)].contains { blocked[$0] != nil }
            guard !isBlocked else {
                try await client.rest(Limits.connecting)
                throw TesseraError(.unreachable, "nothing comes through")
            }
            let link = Link(
                client: End(client, try channel(from: server.name)), server: End(server, try channel(from: client.name)))
            guard client.isAlive, let connection = try open(link.client, limits: limits),
                let accepted = try open(link.server, limits: .stranger)
            else { throw SimulatedProcess.dead }
            links.append(link)
            accept(accepted)
            return connection
        } catch {
            throw TesseraError(wrapping: error)
        }
    }

    /// A peer without a process that sends bytes, reads nothing, and leaves.
    func sendAsStranger(_ pieces: [ByteBuffer]) {
        guard let server, server.isAlive, let channel = try? channel(from: "stranger") else { return }
        let link = Link(client: End(nil, nil), server: End(server, channel))
        guard let accepted = try? open(link.server, limits: .stranger) else { return }
        links.append(link)
        accept(accepted)
        for piece in pieces { post(.bytes(piece), to: link.server, from: link.client) }
        simulation.after(.seconds(30)) { [self] in end(link.client, of: link) }
    }

    // MARK: Bytes

    /// Takes what the ends want to send, and learns which of them are closed.
    ///
    /// - Parameter hasRun: whether any task has run that may have said something.
    func collect(hasRun: Bool = true) {
        loop.run()
        guard hasRun else { return }
        for link in links {
            for (end, other) in [(link.client, link.server), (link.server, link.client)] {
                guard let channel = end.channel else { continue }
                while let bytes = try? channel.readOutbound(as: ByteBuffer.self) {
                    guard end.process?.isAlive == true, bytes.readableBytes > 0 else { continue }
                    if end === link.client { record(bytes, of: link) }
                    post(.bytes(bytes), to: other, from: end, of: link)
                }
                if !channel.isActive, end.process?.isAlive == true { self.end(end, of: link) }
            }
        }
        links.removeAll { $0.client.hasEnded && $0.server.hasEnded && $0.client.inbox.isEmpty && $0.server.inbox.isEmpty }
    }

    private func record(_ bytes: ByteBuffer, of link: Link) {
        guard link.sent.count < 40 else { return }
        link.sent.append(bytes)
        if link.sent.count == 40, recordings.count < 4 { recordings.append(link.sent) }
    }

    private func end(_ end: End, of link: Link) {
        guard !end.hasEnded else { return }
        end.hasEnded = true
        post(.end, to: end === link.client ? link.server : link.client, from: end)
    }

    private func post(_ parcel: Parcel, to target: End, from sender: End, of link: Link? = nil) {
        var parcel = parcel
        if let link, let damage = link.damage, case .bytes(var bytes) = parcel {
            link.damage = nil
            switch damage {
            case .flip:
                let index = bytes.readerIndex + simulation.draw(0..<bytes.readableBytes)
                bytes.setInteger((bytes.getInteger(at: index) ?? UInt8(0)) ^ 1 << UInt8(simulation.draw(0..<8)), at: index)
                parcel = .bytes(bytes)
            case .cut:
                parcel = .bytes(bytes.readSlice(length: simulation.draw(0..<bytes.readableBytes)) ?? ByteBuffer())
                simulation.after(.zero) { [self] in
                    end(link.client, of: link)
                    end(link.server, of: link)
                }
            }
        }
        target.inbox.append(parcel)
        target.lastArrival = max(target.lastArrival, simulation.now + travelTime)
        wait(target.lastArrival - simulation.now, for: target, from: sender)
    }

    private var travelTime: Duration {
        .seconds(simulation.draw(0...latency) + (simulation.chance(loss) ? simulation.draw(0.2...6) : 0))
    }

    private func wait(_ pause: Duration, for target: End, from sender: End) {
        simulation.after(pause) { [self] in
            if let until = blocked[key(sender.host, target.host)] {
                return wait(until - simulation.now, for: target, from: sender)
            }
            if let process = target.process, process.isAlive, process.isFrozen {
                return wait(.seconds(1), for: target, from: sender)
            }
            guard !target.inbox.isEmpty else { return }
            deliver(target.inbox.removeFirst(), to: target)
        }
    }

    private func deliver(_ parcel: Parcel, to target: End) {
        guard let channel = target.channel, channel.isActive else { return }
        switch parcel {
        // What is no frame closes the connection, which is the affair of its end.
        case .bytes(let bytes): _ = try? channel.writeInbound(bytes)
        case .end: channel.close(promise: nil)
        }
    }

    // MARK: Faults

    private func key(_ from: String, _ to: String) -> String { "\(from) → \(to)" }

    /// Holds all bytes from one host to another. Nobody is told.
    func block(from: String, to: String, for duration: Duration) {
        let until = simulation.now + duration
        blocked[key(from, to)] = max(blocked[key(from, to)] ?? .zero, until)
        simulation.after(duration) { [self] in
            if let end = blocked[key(from, to)], end <= simulation.now { blocked[key(from, to)] = nil }
        }
    }

    /// Does something to the next bytes of one connection.
    func damage(_ damage: Damage) {
        let open = links.filter { $0.client.process != nil && !$0.client.hasEnded && !$0.server.hasEnded }
        if !open.isEmpty { simulation.pick(open).damage = damage }
    }

    /// The process has ended.
    ///
    /// - Parameter isSilent: whether its host went with it, so that nobody tells the peers.
    func lost(_ process: SimulatedProcess, isSilent: Bool) {
        for link in links {
            for end in [link.client, link.server] where end.process === process {
                // A host that comes back answers with a reset, which here comes after a while of its own accord.
                simulation.after(isSilent ? .seconds(simulation.draw(10...120)) : .zero) { [self] in self.end(end, of: link) }
                end.channel?.close(promise: nil)
            }
        }
        collect()
    }
}
