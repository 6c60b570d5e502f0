import NIOCore
package import Protocol

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
