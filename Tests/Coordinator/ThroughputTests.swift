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

    /// A pause is no time of work: the rate is afterwards what it was before.
    @Test func pausesDoNotCount() throws {
        var throughput = Throughput()
        throughput.pause(at: .zero)
        throughput.begin(at: .seconds(10))
        for second in 11...20 { throughput.add(1000, at: .seconds(second)) }
        let before = try #require(throughput.bytesPerSecond(at: .seconds(20)))
        throughput.pause(at: .seconds(20))
        throughput.pause(at: .seconds(30))
        #expect(throughput.bytesPerSecond(at: .seconds(90)) == before)
        throughput.begin(at: .seconds(90))
        #expect(throughput.bytesPerSecond(at: .seconds(90)) == before)
        for second in 91...100 { throughput.add(1000, at: .seconds(second)) }
        #expect(abs(try #require(throughput.bytesPerSecond(at: .seconds(100))) - before) < 50)
    }

    @Test func waitsAddUpUntilTheEnd() {
        var waiting = WaitingTime()
        waiting.note(true, at: .seconds(1))
        waiting.note(true, at: .seconds(2))
        #expect(waiting.total(at: .seconds(4)) == .seconds(3))
        waiting.note(false, at: .seconds(5))
        waiting.note(true, at: .seconds(10))
        waiting.end(at: .seconds(11))
        waiting.note(true, at: .seconds(12))
        #expect(waiting.total(at: .seconds(100)) == .seconds(5))
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
