/// A cache that evicts the least recently used values first. Every operation takes constant time.
struct RecentlyUsed<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private struct Entry: Sendable {
        let key: Key
        var value: Value
        let cost: Int
        /// Neighbours in the order of use; `nil` at the ends.
        var older: Int?
        var newer: Int?
    }

    private let capacity: Int
    private var cost = 0
    private var places: [Key: Int] = [:]
    private var entries: [Entry?] = []
    private var free: [Int] = []
    private var oldest: Int?
    private var newest: Int?

    /// - Parameter capacity: the largest sum of the values' costs.
    init(capacity: Int) { self.capacity = capacity }

    /// The value, which becomes the most recently used.
    mutating func use(_ key: Key) -> Value? {
        guard let place = places[key], let value = entries[place]?.value else { return nil }
        if newest != place {
            unlink(place)
            link(place)
        }
        return value
    }

    /// Inserts the value as the most recently used. A value whose cost exceeds the capacity is not kept.
    mutating func keep(_ value: Value, for key: Key, cost: Int) {
        if let place = places[key] { remove(place) }
        guard cost <= capacity else { return }
        while self.cost > capacity - cost, let oldest { remove(oldest) }
        let entry = Entry(key: key, value: value, cost: cost)
        let place = free.popLast() ?? entries.count
        if place == entries.count { entries.append(entry) } else { entries[place] = entry }
        places[key] = place
        self.cost += cost
        link(place)
    }

    private mutating func remove(_ place: Int) {
        guard let entry = entries[place] else { return }
        unlink(place)
        entries[place] = nil
        places[entry.key] = nil
        free.append(place)
        cost -= entry.cost
    }

    private mutating func link(_ place: Int) {
        entries[place]?.older = newest
        entries[place]?.newer = nil
        if let newest { entries[newest]?.newer = place } else { oldest = place }
        newest = place
    }

    private mutating func unlink(_ place: Int) {
        guard let entry = entries[place] else { return }
        if let older = entry.older { entries[older]?.newer = entry.newer } else { oldest = entry.newer }
        if let newer = entry.newer { entries[newer]?.older = entry.older } else { newest = entry.older }
    }
}
