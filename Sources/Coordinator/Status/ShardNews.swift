import Core
import Protocol

/// Shards of one job as the event stream tells of them: numbers alone, so that ten thousand cost little.
struct ShardNews: Sendable {
    let job: JobID
    /// Shards of the job.
    let total: Int
    /// Shards that the reader has not heard of before, from the number `firstNew`.
    let firstNew: Int
    let new: [ShardSummary]
    /// Names of workers that the reader has not heard of before; runs count all names from 0.
    let names: [String]
    let traces: [ShardTrace]

    /// One line of JSON. `rows` holds for each shard its number, state (0 pending, 1 leased, 2 committed), number of attempts and
    /// finished bytes, and behind them for each attempt its worker, beginning and duration in milliseconds (-1 where unknown or
    /// not over) and outcome (0 running, 1 committed, 2 failed).
    var json: [UInt8] {
        var text = NumberText()
        text.add("{\"job\":\"\(job)\",\"total\":\(total),\"first\":\(firstNew),\"labels\":[")
        text.list(new) { $0.quoted($1.label.shortened(to: 200)) }
        text.add("],\"bytes\":[")
        text.list(new) { $0.number($1.byteCount) }
        text.add("],\"tensors\":[")
        text.list(new) { $0.number($1.tensorCount) }
        text.add("],\"workers\":[")
        text.list(names) { $0.quoted($1) }
        text.add("],\"rows\":[")
        text.list(traces) { text, trace in
            text.add("[")
            text.list([trace.index, Self.number(of: trace.state), trace.attempts, trace.bytesDone]) { $0.number($1) }
            for run in trace.runs {
                for number in [
                    Int(run.worker), run.begun.map(Int.init) ?? -1, run.lasted.map(Int.init) ?? -1, Int(run.outcome.rawValue),
                ] {
                    text.add(",")
                    text.number(number)
                }
            }
            text.add("]")
        }
        text.add("]}")
        return text.bytes
    }

    private static func number(of state: ShardStatus.State) -> Int {
        switch state {
        case .pending: 0
        case .leased: 1
        case .committed: 2
        }
    }
}

/// JSON made piece by piece.
private struct NumberText {
    private(set) var bytes: [UInt8] = []

    mutating func add(_ text: String) { bytes += text.utf8 }

    mutating func number(_ number: Int) { add(String(number)) }

    mutating func quoted(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case 0x22, 0x5c: bytes += [0x5c, byte]
            case 0..<0x20: bytes += "\\u00\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    mutating func list<Element>(_ elements: [Element], _ body: (inout NumberText, Element) -> Void) {
        for (index, element) in elements.enumerated() {
            if index > 0 { add(",") }
            body(&self, element)
        }
    }
}
