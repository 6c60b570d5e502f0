import Core
import Synchronization

/// Requests a tensor's input from the disk before it is needed, so that reading and computing overlap.
///
/// Only the first pass over a tensor is read ahead. For later passes the data is in memory, or the tensor is too large for that
/// anyway.
package final class ReadAhead: Sendable {
    private let sources: [any ElementSource]
    private let count: Int
    /// Elements of each source per request.
    private let step: Int
    private let asked = Atomic(0)

    /// Bytes of all sources together per request. Up to two requests are outstanding.
    private static let stepBytes = 16 << 20

    /// - Parameter count: elements of each source.
    package init(_ sources: [any ElementSource], count: Int) {
        self.sources = sources
        self.count = count
        step = max(1, Self.stepBytes * 8 / max(1, sources.reduce(0) { $0 + $1.dtype.bitWidth }))
    }

    /// To be called before elements from `element` on are read.
    package func advance(to element: Int) {
        let known = asked.load(ordering: .relaxed)
        guard known < count, known < element + step else { return }
        let end = min(count, max(known, element) + step)
        guard asked.compareExchange(expected: known, desired: end, ordering: .relaxed).exchanged else { return }
        for source in sources { source.prefetch(known..<end) }
    }
}
