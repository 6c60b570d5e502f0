import HeapModule

/// Shares a number of bytes out among things that can be stored in several ways.
///
/// Each unit (a tensor) is stored with one of several `shared` choices; under it each of its items (the tensor of one task) takes
/// one of several `options`. What is minimised is the sum of the items' losses. The Lagrangian `Σ loss + λ · bytes` falls apart
/// into units, shared choices and items, each of which is solved by looking at all options; `λ` is found by bisection, and what
/// is left of the budget goes to the options that gain most for a byte. The result lies on the convex hull of what can be
/// reached, but for that last step.
package struct BitBudget {
    package struct Option: Sendable, Hashable {
        package let bytes: Int
        package let loss: Double

        package init(bytes: Int, loss: Double) {
            self.bytes = bytes
            self.loss = loss
        }
    }

    package struct Shared: Sendable {
        package let bytes: Int
        /// For each item its options, in one order throughout.
        package let items: [[Option]]

        package init(bytes: Int, items: [[Option]]) {
            self.bytes = bytes
            self.items = items
        }
    }

    package struct Choice: Sendable, Hashable {
        package var shared: Int
        package var options: [Int]
    }

    private let units: [[Shared]]
    package let budget: Int

    package init(units: [[Shared]], budget: Int) {
        self.units = units
        self.budget = budget
    }

    /// Bytes of a choice for every unit.
    package func bytes(_ choices: [Choice]) -> Int {
        zip(units, choices).reduce(0) { total, pair in
            let shared = pair.0[pair.1.shared]
            return total + shared.bytes + zip(shared.items, pair.1.options).reduce(0) { $0 + $1.0[$1.1].bytes }
        }
    }

    /// - Returns: the choice for each unit, and the least bytes that there are; no choice where the budget is below those.
    package func solve() -> (choices: [Choice]?, least: Int) {
        let cheapest = choices(price: .infinity)
        let least = bytes(cheapest)
        guard least <= budget else { return (nil, least) }
        // Prices of a byte, as powers of two: losses are relative or absolute and may be tiny.
        var low = -400.0, high = 100.0
        var best = cheapest
        for _ in 0..<100 {
            let middle = (low + high) / 2
            let found = choices(price: .pow2(middle))
            if bytes(found) <= budget {
                best = found
                high = middle
            } else {
                low = middle
            }
        }
        return (spend(the: budget - bytes(best), on: best), least)
    }

    private func choices(price: Double) -> [Choice] { units.map { choice(in: $0, price: price) } }

    private func choice(in unit: [Shared], price: Double) -> Choice {
        var best: (choice: Choice, cost: Double)?
        for (index, shared) in unit.enumerated() {
            var options: [Int] = []
            options.reserveCapacity(shared.items.count)
            var cost = Self.cost(bytes: shared.bytes, loss: 0, price: price)
            for item in shared.items {
                var least: (option: Int, cost: Double, bytes: Int)?
                for (option, each) in item.enumerated() {
                    let cost = Self.cost(bytes: each.bytes, loss: each.loss, price: price)
                    if least.map({ (cost, each.bytes) < ($0.cost, $0.bytes) }) ?? true { least = (option, cost, each.bytes) }
                }
                options.append(least?.option ?? 0)
                cost += least?.cost ?? 0
            }
            if best.map({ cost < $0.cost }) ?? true { best = (Choice(shared: index, options: options), cost) }
        }
        return best?.choice ?? Choice(shared: 0, options: [])
    }

    /// At an infinite price only bytes count.
    private static func cost(bytes: Int, loss: Double, price: Double) -> Double {
        price.isFinite ? loss + price * Double(bytes) : Double(bytes)
    }

    /// What an item gains by going over to another option.
    private struct Step: Comparable {
        let unit: Int
        let item: Int
        let option: Int
        let bytes: Int
        /// For each byte.
        let gain: Double

        /// Of equal gains, that of the first item is the larger one.
        static func < (left: Step, right: Step) -> Bool {
            left.gain == right.gain ? (left.unit, left.item) > (right.unit, right.item) : left.gain < right.gain
        }
    }

    /// Gives what is left to the items that gain most for a byte, one step at a time, as long as one fits.
    private func spend(the rest: Int, on choices: [Choice]) -> [Choice] {
        var choices = choices, rest = rest
        func best(ofUnit unit: Int, item: Int) -> Step? {
            let options = units[unit][choices[unit].shared].items[item], now = options[choices[unit].options[item]]
            var best: Step?
            for (option, next) in options.enumerated() where next.loss < now.loss && next.bytes - now.bytes <= rest {
                let bytes = next.bytes - now.bytes, gain = (now.loss - next.loss) / Double(max(1, bytes))
                if gain > best?.gain ?? 0 { best = Step(unit: unit, item: item, option: option, bytes: bytes, gain: gain) }
            }
            return best
        }
        func all() -> Heap<Step> {
            Heap(
                units.indices.flatMap { unit in
                    units[unit][choices[unit].shared].items.indices.compactMap { best(ofUnit: unit, item: $0) }
                })
        }
        // The best step of each item that fitted when the step was found. What is left only shrinks, so that no item has a
        // better one; an item whose step no longer fits is looked at again.
        var steps = all()
        while let step = steps.popMax() {
            if step.bytes <= rest {
                choices[step.unit].options[step.item] = step.option
                rest -= step.bytes
                if step.bytes < 0 {
                    steps = all()
                    continue
                }
            }
            if let next = best(ofUnit: step.unit, item: step.item) { steps.insert(next) }
        }
        return choices
    }
}

extension Double {
    fileprivate static func pow2(_ exponent: Double) -> Double {
        let whole = exponent.rounded(.down)
        // Between powers of two a straight line does: only the order of prices matters.
        return Double(sign: .plus, exponent: Int(whole), significand: 1 + (exponent - whole))
    }
}
