/// The places of a port, and which connection loses its place when another one comes.
///
/// A connection whose peer has not said yet what it wants is a stranger. Only so many places go to strangers. When these are
/// taken, the next connection gets that of the oldest stranger of the address with the most strangers: whoever floods the port
/// pushes out itself. Other connections keep their places.
package struct ConnectionPlaces: Sendable {
    package struct Limits: Sendable {
        /// Connections at the same time, and those of one address.
        package let total: Int
        package let perAddress: Int
        /// Strangers among all connections.
        package let strangers: Int

        package init(total: Int, perAddress: Int, strangers: Int) {
            self.total = total
            self.perAddress = perAddress
            self.strangers = strangers
        }

        /// Half of the places for one address, and half for strangers.
        package init(total: Int) { self.init(total: total, perAddress: max(1, total / 2), strangers: max(1, total / 2)) }
    }

    /// What becomes of a connection that comes.
    package enum Arrival: Hashable, Sendable {
        case enters
        /// In place of another one, which is to be closed.
        case replaces(Int)
        /// All places are taken, and none of them by a stranger.
        case refused
    }

    private struct Group {
        var count = 0
        /// From the one that has been a stranger for longest.
        var strangers: [Int] = []
    }

    private let limits: Limits
    private var addresses: [Int: String] = [:]
    private var groups: [String: Group] = [:]
    private var strangerCount = 0

    package init(_ limits: Limits) { self.limits = limits }

    /// - Parameter number: names the connection, larger than the numbers before it.
    package mutating func arrive(_ number: Int, from address: String) -> Arrival {
        let own = groups[address] ?? Group()
        var replaced: Int?
        if own.count >= limits.perAddress {
            guard let oldest = own.strangers.first else { return .refused }
            replaced = oldest
        } else if addresses.count >= limits.total || strangerCount >= limits.strangers {
            guard let oldest = oldestOfTheMost else { return .refused }
            replaced = oldest
        }
        if let replaced { leave(replaced) }
        addresses[number] = address
        groups[address, default: Group()].count += 1
        becomeStranger(number)
        return replaced.map { .replaces($0) } ?? .enters
    }

    /// The connection's peer is known or has asked for something: nobody gets the place.
    package mutating func keep(_ number: Int) {
        guard let address = addresses[number], let index = groups[address]?.strangers.firstIndex(of: number) else { return }
        groups[address]?.strangers.remove(at: index)
        strangerCount -= 1
    }

    /// The connection's peer has what it asked for, and counts as a stranger again, the youngest of all.
    package mutating func offer(_ number: Int) {
        guard addresses[number] != nil else { return }
        keep(number)
        becomeStranger(number)
    }

    /// The connection has ended.
    package mutating func leave(_ number: Int) {
        keep(number)
        guard let address = addresses.removeValue(forKey: number) else { return }
        groups[address]?.count -= 1
        if groups[address]?.count == 0 { groups[address] = nil }
    }

    private mutating func becomeStranger(_ number: Int) {
        guard let address = addresses[number] else { return }
        groups[address, default: Group()].strangers.append(number)
        strangerCount += 1
    }

    /// The oldest stranger of the address with the most; of several such addresses, the oldest of all.
    private var oldestOfTheMost: Int? {
        groups.values.lazy.compactMap { group in group.strangers.first.map { (count: group.strangers.count, oldest: $0) } }
            .max { ($0.count, $1.oldest) < ($1.count, $0.oldest) }?.oldest
    }
}
