import Testing

@testable import Worker

@Suite struct WorkTallyTests {
    @Test func aWorkerSpeaksWhenItHasNothingToDo() {
        var tally = WorkTally()
        tally.started(at: .seconds(1))
        tally.finished(bytes: 10, at: .seconds(2))
        tally.finished(bytes: 20, at: .seconds(3))
        tally.failed(at: .seconds(4))
        #expect(tally.report(isIdle: true, at: .seconds(5)) == nil)
        #expect(tally.report(isIdle: false, at: .seconds(7)) == nil)
        #expect(tally.report(isIdle: true, at: .seconds(7)) == WorkTally.Report(shards: 2, failed: 1, bytes: 30, seconds: 3))
        #expect(tally.report(isIdle: true, at: .seconds(100)) == nil)
    }

    @Test func aBusyWorkerSpeaksEachMinute() {
        var tally = WorkTally(), spoken: [Int] = []
        for second in 0..<180 {
            tally.finished(bytes: 1, at: .seconds(second))
            if tally.report(isIdle: false, at: .seconds(second)) != nil { spoken.append(second) }
        }
        #expect(spoken == [60, 121])
    }

    @Test func whatIsLeftIsSaidAtTheEnd() {
        var tally = WorkTally()
        #expect(tally.takeReport() == nil)
        tally.finished(bytes: 5, at: .seconds(1))
        #expect(tally.takeReport()?.shards == 1)
        #expect(tally.takeReport() == nil)
    }
}
