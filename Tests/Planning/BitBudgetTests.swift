import Planning
import TestSupport
import Testing

/// Budgets are kept, and what is bought with them is nearly the best that can be.
@Suite struct BitBudgetTests {
    private typealias Option = BitBudget.Option
    private typealias Shared = BitBudget.Shared

    /// Losses that fall with the bytes, but not always evenly.
    private static func options(_ random: inout SplitMix) -> [Option] {
        var bytes = Int.random(in: 0...20, using: &random), loss = Double.random(in: 5...100, using: &random)
        return (0..<Int.random(in: 1...5, using: &random)).map { _ in
            defer {
                bytes += Int.random(in: 1...30, using: &random)
                loss *= Double.random(in: 0.2...1.1, using: &random)
            }
            return Option(bytes: bytes, loss: loss)
        }
    }

    private static func units(_ count: Int, shared: Int, items: Int, _ random: inout SplitMix) -> [[Shared]] {
        (0..<count).map { _ in
            (0..<shared).map { index in
                Shared(
                    bytes: index * Int.random(in: 1...30, using: &random),
                    items: (0..<items).map { _ in options(&random) })
            }
        }
    }

    private static func loss(_ choices: [BitBudget.Choice], _ units: [[Shared]]) -> Double {
        zip(units, choices).reduce(0) { total, pair in
            total + zip(pair.0[pair.1.shared].items, pair.1.options).reduce(0) { $0 + $1.0[$1.1].loss }
        }
    }

    /// Every way to store a unit.
    private static func ways(_ unit: [Shared]) -> [Option] {
        unit.flatMap { shared in
            shared.items.reduce([Option(bytes: shared.bytes, loss: 0)]) { ways, item in
                ways.flatMap { way in item.map { Option(bytes: way.bytes + $0.bytes, loss: way.loss + $0.loss) } }
            }
        }
    }

    /// The least loss for each number of bytes.
    private static func best(_ units: [[Shared]], budget: Int) -> Double? {
        var table: [Double?] = [0] + [Double?](repeating: nil, count: max(0, budget))
        for unit in units {
            var next = [Double?](repeating: nil, count: table.count)
            let ways = ways(unit)
            for (bytes, loss) in table.enumerated() {
                guard let loss else { continue }
                for way in ways where bytes + way.bytes < table.count {
                    let sum = loss + way.loss
                    if sum < next[bytes + way.bytes] ?? .infinity { next[bytes + way.bytes] = sum }
                }
            }
            table = next
        }
        return table.compactMap(\.self).min()
    }

    @Test func nearlyTheBest() {
        var random = SplitMix(seed: 1)
        var found = 0.0, best = 0.0, exact = 0, solved = 0
        for _ in 0..<150 {
            let units = Self.units(
                Int.random(in: 1...4, using: &random), shared: Int.random(in: 1...3, using: &random),
                items: Int.random(in: 1...2, using: &random), &random)
            let budget = BitBudget(units: units, budget: Int.random(in: 0...250, using: &random))
            let (choices, least) = budget.solve()
            let cheapest = units.reduce(0) { $0 + (Self.ways($1).map(\.bytes).min() ?? 0) }
            #expect(least == cheapest)
            guard let choices else {
                #expect(budget.budget < cheapest)
                #expect(Self.best(units, budget: budget.budget) == nil)
                continue
            }
            #expect(budget.bytes(choices) <= budget.budget)
            guard let optimum = Self.best(units, budget: budget.budget) else {
                Issue.record("more than the best")
                continue
            }
            let loss = Self.loss(choices, units)
            // One unit at most is not where the convex hull has it.
            let ranges = units.map { unit in
                let losses = Self.ways(unit).map(\.loss)
                return (losses.max() ?? 0) - (losses.min() ?? 0)
            }
            #expect(loss >= optimum - 1e-9 && loss <= optimum + (ranges.max() ?? 0) + 1e-9)
            solved += 1
            exact += loss <= optimum + 1e-9 ? 1 : 0
            found += loss
            best += optimum
        }
        #expect(solved > 100)
        #expect(Double(exact) > 0.5 * Double(solved), "\(exact) of \(solved)")
        #expect(found < 1.1 * best, "\(found / best)")
    }

    /// From the cheapest on, the step that gains most for a byte, as long as one fits.
    private static func greedy(_ items: [[Option]], budget: Int) -> Double {
        var chosen = items.map { item in
            item.indices.min { (item[$0].bytes, item[$0].loss) < (item[$1].bytes, item[$1].loss) } ?? 0
        }
        var rest = budget - zip(items, chosen).reduce(0) { $0 + $1.0[$1.1].bytes }
        while true {
            var best: (item: Int, option: Int, gain: Double)?
            for (number, item) in items.enumerated() {
                let now = item[chosen[number]]
                for (index, option) in item.enumerated() where option.loss < now.loss && option.bytes - now.bytes <= rest {
                    let gain = (now.loss - option.loss) / Double(max(1, option.bytes - now.bytes))
                    if gain > best?.gain ?? 0 { best = (number, index, gain) }
                }
            }
            guard let best else { return zip(items, chosen).reduce(0) { $0 + $1.0[$1.1].loss } }
            rest -= items[best.item][best.option].bytes - items[best.item][chosen[best.item]].bytes
            chosen[best.item] = best.option
        }
    }

    @Test func noWorseThanGreedy() {
        var random = SplitMix(seed: 2)
        for _ in 0..<12 {
            let items = (0..<80).map { _ in Self.options(&random) }
            let units = items.map { [Shared(bytes: 0, items: [$0])] }
            let budget = BitBudget(units: units, budget: Int.random(in: 1_600...4_800, using: &random))
            guard let choices = budget.solve().choices else { continue }
            #expect(budget.bytes(choices) <= budget.budget)
            let greedy = Self.greedy(items, budget: budget.budget)
            #expect(Self.loss(choices, units) <= greedy * 1.001, "\(Self.loss(choices, units) / greedy)")
        }
    }

    /// No price tells them apart: then as many as fit get more.
    @Test func itemsThatAreAllAlike() throws {
        let item = [Option(bytes: 10, loss: 8), Option(bytes: 20, loss: 3), Option(bytes: 40, loss: 1)]
        let units = (0..<100).map { _ in [Shared(bytes: 0, items: [item])] }
        for (budget, loss) in [
            (1000, 800), (1009, 800), (1010, 795), (1500, 550), (2000, 300), (3000, 200), (4000, 100), (9999, 100),
        ] {
            let choices = try #require(BitBudget(units: units, budget: budget).solve().choices)
            #expect(Self.loss(choices, units) == Double(loss), "\(budget)")
        }
        #expect(BitBudget(units: units, budget: 999).solve().choices == nil)
        #expect(BitBudget(units: units, budget: 999).solve().least == 1000)
    }

    /// Items of which no price tells two apart take as many steps as fit, the first items first.
    @Test func aStepForEachOfManyItems() throws {
        let item = [Option(bytes: 10, loss: 8), Option(bytes: 20, loss: 3), Option(bytes: 40, loss: 1)]
        let units = (0..<2_000).map { _ in [Shared(bytes: 0, items: [item])] }
        let choices = try #require(BitBudget(units: units, budget: 39_999).solve().choices)
        let counts = (0..<3).map { option in choices.count { $0.options == [option] } }
        #expect(counts == [1, 1_999, 0])
        #expect(choices.last?.options == [0])
    }

    /// However many gains are equal, the rest of a budget is spent until no step fits.
    @Test func nothingThatFitsIsLeft() throws {
        var random = SplitMix(seed: 3)
        for _ in 0..<40 {
            // Losses from a few values, so that many gains are equal; prices tell little apart.
            let items = (0..<30).map { _ in
                (0..<4).map { Option(bytes: 10 * $0 + Int.random(in: 0...3, using: &random), loss: Double(8 >> $0)) }
            }
            let budget = BitBudget(
                units: items.map { [Shared(bytes: 0, items: [$0])] }, budget: Int.random(in: 100...800, using: &random))
            guard let choices = budget.solve().choices else { continue }
            let rest = budget.budget - budget.bytes(choices)
            for (item, choice) in zip(items, choices) {
                let now = item[choice.options[0]]
                #expect(!item.contains { $0.loss < now.loss && $0.bytes - now.bytes <= rest })
            }
        }
    }

    @Test func lossesOfAnySize() throws {
        for scale in [1e-60, 1, 1e25] {
            let items = (1...50).map { index in
                [0, 1, 2, 4, 8].map { Option(bytes: 10 * $0, loss: scale * Double(index) / Double(1 << (2 * $0))) }
            }
            let units = items.map { [Shared(bytes: 0, items: [$0])] }
            let budget = BitBudget(units: units, budget: 700)
            let choices = try #require(budget.solve().choices)
            #expect(Self.loss(choices, units) <= 1.001 * Self.greedy(items, budget: 700))
            #expect(budget.bytes(choices) > 690)
        }
    }

    @Test func nothingToShareOut() throws {
        #expect(try #require(BitBudget(units: [], budget: 0).solve().choices).isEmpty)
        let nothing = [[Shared(bytes: 0, items: [[Option(bytes: 0, loss: 0)]])]]
        #expect(try #require(BitBudget(units: nothing, budget: 0).solve().choices).count == 1)
    }
}
