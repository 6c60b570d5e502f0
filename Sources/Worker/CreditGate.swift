package import Core
import Dispatch
import Synchronization

/// Holds threads back that have blocks to send, until the coordinator has stored enough of those before.
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

    /// The connection is gone: nobody waits any longer.
    package func close() {
        wake { $0.isClosed = true }
    }

    /// Waits for `bytes` of credit and uses them up.
    ///
    /// - Throws: `unreachable` once the connection is gone.
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
