package import Core
import Dispatch
import Synchronization

/// Blocks sending threads until the coordinator has stored enough earlier blocks.
package final class CreditGate: Sendable {
    private struct State {
        var credit = 0
        var isClosed = false
        var waiting: [DispatchSemaphore] = []
    }

    private let state = Mutex(State())

    package init() {}

    package func add(_ bytes: Int) {
        wake { $0.credit += bytes }
    }

    /// The connection has closed: wakes all waiting threads.
    package func close() {
        wake { $0.isClosed = true }
    }

    /// Waits for `bytes` of credit and consumes them.
    ///
    /// - Throws: `unreachable` once the connection has closed.
    package func take(_ bytes: Int) throws(TesseraError) {
        while true {
            let (isTaken, isClosed, turn): (Bool, Bool, DispatchSemaphore?) = state.withLock { state in
                if state.isClosed { return (false, true, nil) }
                if state.credit >= bytes {
                    state.credit -= bytes
                    return (true, false, nil)
                }
                let turn = DispatchSemaphore(value: 0)
                state.waiting.append(turn)
                return (false, false, turn)
            }
            if isTaken { return }
            if isClosed { throw TesseraError(.unreachable, "the connection to the coordinator is gone") }
            turn?.wait()
        }
    }

    private func wake(_ change: (inout State) -> Void) {
        let woken = state.withLock { state in
            change(&state)
            defer { state.waiting = [] }
            return state.waiting
        }
        for turn in woken { turn.signal() }
    }
}
