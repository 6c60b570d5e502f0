import Glibc
package import NIOCore
import Protocol
import Synchronization

/// Gives connections of a port their places (`ConnectionPlaces`), and closes those that lose theirs.
package final class Admission: Sendable {
    private struct State {
        var others: ConnectionPlaces
        /// Where connections of this host have places of their own.
        var local: ConnectionPlaces?
        var channels: [Int: any Channel] = [:]
        var lastNumber = 0

        mutating func update<Result>(isLocal: Bool, _ body: (inout ConnectionPlaces) -> Result) -> Result {
            guard isLocal, var places = local else { return body(&others) }
            local = nil
            defer { local = places }
            return body(&places)
        }
    }

    private let state: Mutex<State>
    private let separatesLocal: Bool

    /// - Parameter local: places that only connections of this host can have, which then have no others; `nil` for one row of
    ///   places for all.
    package init(_ limits: ConnectionPlaces.Limits, local: ConnectionPlaces.Limits? = nil) {
        state = Mutex(State(others: ConnectionPlaces(limits), local: local.map { ConnectionPlaces($0) }))
        separatesLocal = local != nil
    }

    /// - Returns: `nil` if there is no place for the channel, which is then closed.
    package func place(for channel: any Channel) -> Place? {
        let address = Self.group(channel.remoteAddress?.ipAddress ?? "")
        let isLocal = separatesLocal && HostPort(host: address, port: 0).isLoopback
        let (number, arrival, replaced) = state.withLock { state in
            state.lastNumber += 1
            let number = state.lastNumber
            let arrival = state.update(isLocal: isLocal) { $0.arrive(number, from: address) }
            var replaced: (any Channel)?
            if case .replaces(let other) = arrival { replaced = state.channels.removeValue(forKey: other) }
            if arrival != .refused { state.channels[number] = channel }
            return (number, arrival, replaced)
        }
        replaced?.close(promise: nil)
        guard arrival != .refused else {
            channel.close(promise: nil)
            return nil
        }
        channel.closeFuture.whenComplete { [self] _ in
            update(isLocal: isLocal) { $0.leave(number) }
            state.withLock { state in state.channels[number] = nil }
        }
        return Place(admission: self, number: number, isLocal: isLocal)
    }

    fileprivate func update(isLocal: Bool, _ body: (inout ConnectionPlaces) -> Void) {
        state.withLock { $0.update(isLocal: isLocal, body) }
    }

    /// What counts as one address: of IPv6, the 64 bits of a network, since whoever has one address there has all.
    ///
    /// - Parameter address: as text.
    static func group(_ address: String) -> String {
        var bytes = [UInt8](repeating: 0, count: 16)
        guard inet_pton(AF_INET6, address, &bytes) == 1 else { return address }
        // Loopback and IPv4 addresses that are written as IPv6 have zeros there.
        guard bytes.prefix(8).allSatisfy({ $0 == 0 }) else {
            return bytes.prefix(8).map { String($0, radix: 16) }.joined(separator: ":")
        }
        let mapped = "::ffff:"
        return address.hasPrefix(mapped) ? String(address.dropFirst(mapped.count)) : address
    }
}

/// The place of a connection at its port.
package struct Place: Sendable {
    fileprivate let admission: Admission
    fileprivate let number: Int
    fileprivate let isLocal: Bool

    /// No other connection gets the place from now on.
    package func keep() { admission.update(isLocal: isLocal) { $0.keep(number) } }

    /// Another connection may get the place.
    package func offer() { admission.update(isLocal: isLocal) { $0.offer(number) } }
}
