import Core
import Synchronization

/// Asks for a tensor's input before it is read, so that the disk is busy while the processors are.
///
/// Whatever a method does first, it goes over the tensor from its beginning to its end. What is read again is in memory by then,
/// or the tensor is so large that nothing helps.
package final class ReadAhead: Sendable {
    private let sources: [any ElementSource]
    private let count: Int
    /// Elements of each source that are asked for in one go.
    private let step: Int
    private let asked = Atomic(0)

    /// Bytes of all sources together that are asked for in one go; twice as many may be on their way.
    private static let stepBytes = 16 << 20

    /// - Parameter count: of the elements of each source.
    package init(_ sources: [any ElementSource], count: Int) {
        self.sources = sources
        self.count = count
        step = max(1, Self.stepBytes * 8 / max(1, sources.reduce(0) { $0 + $1.dtype.bitWidth }))
    }

    /// Elements from `element` on are about to be read.
    package func advance(to element: Int) {
        let known = asked.load(ordering: .relaxed)
        guard known < count, known < element + step else { return }
        let end = min(count, max(known, element) + step)
        guard asked.compareExchange(expected: known, desired: end, ordering: .relaxed).exchanged else { return }
        for source in sources { source.prefetch(known..<end) }
    }
}
