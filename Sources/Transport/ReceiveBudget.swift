import Protocol
import Synchronization

/// The memory of a port for frames that have begun and not ended. Peers with the same `FrameLimits` share one part of it, so that
/// strangers and clients take nothing from workers. Whoever finds nothing left waits, and is read no further meanwhile.
package final class ReceiveBudget: Sendable {
    private struct Waiter {
        let number: Int
        let bytes: Int
        let granted: @Sendable () -> Void
    }

    private struct Share {
        var used = 0
        /// In the order of arrival.
        var waiting: [Waiter] = []
    }

    private struct State {
        var shares: [FrameLimits: Share] = [:]
        var nextNumber = 0
    }

    private let state = Mutex(State())

    package init() {}

    /// What became of a wish for memory.
    enum Answer: Hashable {
        case taken
        /// With a number for `stopWaiting`.
        case waits(Int)
    }

    /// - Parameter granted: called later, on any thread, if the answer is `waits`: the bytes are then taken.
    func take(_ bytes: Int, of limits: FrameLimits, granted: @escaping @Sendable () -> Void) -> Answer {
        state.withLock { state in
            var share = state.shares[limits, default: Share()]
            defer { state.shares[limits] = share }
            // One frame always fits, whatever the limit is.
            if share.waiting.isEmpty, share.used == 0 || bytes <= limits.unfinishedBytes - share.used {
                share.used += bytes
                return .taken
            }
            state.nextNumber += 1
            share.waiting.append(Waiter(number: state.nextNumber, bytes: bytes, granted: granted))
            return .waits(state.nextNumber)
        }
    }

    func giveBack(_ bytes: Int, of limits: FrameLimits) {
        let woken = state.withLock { state in
            var share = state.shares[limits, default: Share()], woken: [Waiter] = []
            share.used -= bytes
            while let next = share.waiting.first, share.used == 0 || next.bytes <= limits.unfinishedBytes - share.used {
                share.used += next.bytes
                woken.append(share.waiting.removeFirst())
            }
            state.shares[limits] = share
            return woken
        }
        for waiter in woken { waiter.granted() }
    }

    /// - Returns: whether it still waited; if not, the bytes are taken.
    func stopWaiting(_ number: Int, of limits: FrameLimits) -> Bool {
        state.withLock { state in
            guard let index = state.shares[limits]?.waiting.firstIndex(where: { $0.number == number }) else { return false }
            state.shares[limits]?.waiting.remove(at: index)
            return true
        }
    }

    /// Bytes that are taken.
    func used(of limits: FrameLimits) -> Int { state.withLock { $0.shares[limits]?.used ?? 0 } }
}
