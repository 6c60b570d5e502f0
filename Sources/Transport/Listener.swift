import NIOCore
import NIOSSL
package import Protocol
import Synchronization

/// An open port.
package struct Listener: Sendable {
    private let channel: NIOAsyncChannel<Connection?, Never>
    private let host: String

    init(channel: NIOAsyncChannel<Connection?, Never>, host: String) {
        self.channel = channel
        self.host = host
    }

    /// The bound address. If port 0 was requested, this has the port that the system chose.
    package var address: HostPort { HostPort(host: host, port: channel.channel.localAddress?.port ?? 0) }

    /// Serves each connection in its own task until `close` or cancellation. Cancellation also ends the connections.
    ///
    /// - Parameter serve: called with the connection and its number, from 1.
    package func serve(_ serve: @escaping @Sendable (Connection, Int) async -> Void) async throws {
        try await withThrowingDiscardingTaskGroup { group in
            try await channel.executeThenClose { connections in
                var count = 0
                for try await connection in connections {
                    guard let connection else { continue }
                    count += 1
                    let number = count
                    group.addTask { await serve(connection, number) }
                }
            }
            group.cancelAll()
        }
    }

    /// Accepts no more connections and ends the open ones.
    package func close() { channel.channel.close(promise: nil) }
}

/// Counts the connections of a port.
final class Admission: Sendable {
    private struct Open {
        var total = 0
        var byAddress: [String: Int] = [:]

        mutating func add(_ count: Int, _ address: String) {
            total += count
            let left = byAddress[address, default: 0] + count
            byAddress[address] = left > 0 ? left : nil
        }
    }

    private let limit: Int
    private let limitPerAddress: Int
    private let tls: ServerTLS?
    private let open = Mutex(Open())
    private let budget = ReceiveBudget()

    init(limit: Int, perAddress: Int, tls: ServerTLS?) {
        self.limit = limit
        limitPerAddress = perAddress
        self.tls = tls
    }

    /// - Returns: `nil` if there are too many connections; the channel is then closed.
    func admit(_ channel: any Channel) throws -> Connection? {
        let address = channel.remoteAddress?.ipAddress ?? ""
        let isAdmitted = open.withLock { open in
            open.add(1, address)
            return open.total <= limit && open.byAddress[address, default: 0] <= limitPerAddress
        }
        channel.closeFuture.whenComplete { [self] _ in open.withLock { $0.add(-1, address) } }
        guard isAdmitted else {
            channel.close(promise: nil)
            return nil
        }
        return try Connection(
            on: channel, limits: .stranger, budget: budget, tls: tls.map { NIOSSLServerHandler(context: $0.context) },
            expects: tls?.needsCertificates == true ? .role : .none)
    }
}
