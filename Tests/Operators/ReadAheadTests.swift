import Core
import Operators
import Synchronization
import TensorKernels
import Testing

/// The disk is asked for what comes next: for all of it, once, and not for all of it at once.
@Suite struct ReadAheadTests {
    /// Zeros that only know what they were asked for.
    private final class Asked: ElementSource {
        let dtype = DType.bf16
        let count: Int
        let ranges = Mutex<[Range<Int>]>([])

        init(count: Int) { self.count = count }

        func load(
            _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
            kernels: Kernels
        ) { target.update(repeating: 0, count: range.count) }

        func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) {}
        func prefetch(_ range: Range<Int>) { ranges.withLock { $0.append(range) } }
        func release(_ range: Range<Int>) {}
    }

    @Test func everythingIsAskedForOnceAndBeforeItIsRead() {
        let count = 50_000_000, sources = (0..<4).map { _ in Asked(count: count) }
        let ahead = ReadAhead(sources, count: count)
        var position = 0
        while position < count {
            ahead.advance(to: position)
            let end = sources[0].ranges.withLock { $0.last?.upperBound ?? 0 }
            #expect(end > position || end == count)
            // Sixteen MiB of all sources, and as much again.
            #expect(end <= position + 2 * (16 << 20) / 8)
            position += 8_192
        }
        for source in sources {
            let ranges = source.ranges.withLock { $0 }
            #expect(ranges.first?.lowerBound == 0 && ranges.last?.upperBound == count)
            #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
            #expect(ranges.count > 10)
        }
    }

    /// Threads are at several places; what lies between them is asked for too.
    @Test func placesFarApart() {
        let source = Asked(count: 100_000_000), ahead = ReadAhead([source], count: 100_000_000)
        for position in [0, 30_000_000, 4_000_000, 99_999_999] { ahead.advance(to: position) }
        let ranges = source.ranges.withLock { $0 }
        #expect(ranges.first?.lowerBound == 0 && ranges.last?.upperBound == 100_000_000)
        #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
    }
}
