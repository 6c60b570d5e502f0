/// Whose turn it is where several owners share a few slots: the owners take turns, and none has all slots.
///
/// - Parameter Waiter: who is told that its turn has begun.
struct FairTurns<Waiter> {
    private let slots: Int
    private let slotsPerOwner: Int
    /// In the order of asking.
    private var waiting: [String: [Waiter]] = [:]
    /// The owners that wait, first the one whose last turn is longest ago.
    private var order: [String] = []
    private var running: [String: Int] = [:]

    /// - Parameter slots: at least one. Where there are more, one always stays for another owner.
    init(slots: Int) {
        self.slots = slots
        slotsPerOwner = max(1, slots - 1)
    }

    /// - Returns: whose turns begin.
    mutating func ask(_ waiter: Waiter, of owner: String) -> [Waiter] {
        if waiting[owner] == nil { order.append(owner) }
        waiting[owner, default: []].append(waiter)
        return begin()
    }

    /// A turn of the owner has ended.
    ///
    /// - Returns: whose turns begin.
    mutating func end(of owner: String) -> [Waiter] {
        let left = running[owner, default: 1] - 1
        running[owner] = left > 0 ? left : nil
        return begin()
    }

    private mutating func begin() -> [Waiter] {
        var begun: [Waiter] = []
        while running.values.reduce(0, +) < slots, let owner = next, var own = waiting.removeValue(forKey: owner) {
            order.removeAll { $0 == owner }
            begun.append(own.removeFirst())
            running[owner, default: 0] += 1
            guard !own.isEmpty else { continue }
            waiting[owner] = own
            order.append(owner)
        }
        return begun
    }

    /// The owner with the fewest slots; of several, the one that has waited longest.
    private var next: String? {
        order.lazy.filter { running[$0, default: 0] < slotsPerOwner }
            .min { running[$0, default: 0] < running[$1, default: 0] }
    }
}
