import Protocol
import Testing

@testable import Coordinator

@Suite struct JobEventStreamTests {
    private func event(_ number: Int) -> JobEvent {
        .workerLeft(WorkerReference(id: number, name: "w", address: "h"), reason: "", isOrderly: true)
    }

    @Test func everyReaderGetsEveryEventFromThenOn() async {
        let stream = JobEventStream()
        stream.send(event(0))
        var first = stream.events().makeAsyncIterator()
        stream.send(event(1))
        var second = stream.events().makeAsyncIterator()
        stream.send(event(2))
        #expect(await first.next() == event(1))
        #expect(await first.next() == event(2))
        #expect(await second.next() == event(2))
    }

    /// It takes no more memory than its share, and learns that it missed something.
    @Test func aReaderThatFallsBehindIsLetGo() async {
        let stream = JobEventStream()
        let slow = stream.events()
        for number in 0..<10_000 { stream.send(event(number)) }
        var count = 0
        for await seen in slow {
            #expect(seen == event(count))
            count += 1
        }
        #expect(count == 4096)
    }
}
