import Testing

@testable import Coordinator

@Suite struct ThroughputTests {
    @Test func nothingIsSaidBeforeASecondOfWork() {
        var throughput = Throughput()
        #expect(throughput.bytesPerSecond(at: .seconds(9)) == nil)
        throughput.begin(at: .seconds(10))
        #expect(throughput.bytesPerSecond(at: .seconds(10.9)) == nil)
        #expect(throughput.bytesPerSecond(at: .seconds(12)) == 0)
    }

    /// A steady stream has its rate from the beginning, whatever the time before it.
    @Test(arguments: [2, 10, 100, 1000]) func aSteadyStreamHasItsRate(seconds: Int) throws {
        var throughput = Throughput()
        throughput.begin(at: .seconds(5))
        for tick in 1...10 * seconds { throughput.add(100, at: .seconds(5) + .milliseconds(100 * tick)) }
        let rate = try #require(throughput.bytesPerSecond(at: .seconds(5 + seconds)))
        #expect(abs(rate - 1000) < 50)
    }

    @Test func aStreamThatEndsFadesAndOldBytesWeighLittle() throws {
        var throughput = Throughput()
        throughput.begin(at: .zero)
        for second in 1...300 { throughput.add(1000, at: .seconds(second)) }
        for second in 301...600 { throughput.add(10, at: .seconds(second)) }
        #expect(abs(try #require(throughput.bytesPerSecond(at: .seconds(600))) - 10) < 1)
        #expect(try #require(throughput.bytesPerSecond(at: .seconds(900))) < 0.01)
    }

    /// Time that goes back, and progress that is taken back, make no rate negative or infinite.
    @Test func oddInputsAreHarmless() throws {
        var throughput = Throughput()
        throughput.add(1000, at: .seconds(10))
        throughput.add(-5000, at: .seconds(9))
        let rate = try #require(throughput.bytesPerSecond(at: .seconds(20)))
        #expect(rate > 0 && rate < 1000)
    }
}
