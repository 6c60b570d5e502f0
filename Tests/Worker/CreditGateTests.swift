import Core
import Dispatch
import Synchronization
import Testing
import Worker

@Suite struct CreditGateTests {
    @Test func neverMoreThanTheCreditIsUnderWay() {
        let gate = CreditGate(), underWay = Mutex(0), highest = Mutex(0)
        gate.add(100)
        DispatchQueue.concurrentPerform(iterations: 400) { _ in
            guard (try? gate.take(30)) != nil else { return }
            let now = underWay.withLock { count in
                count += 30
                return count
            }
            highest.withLock { $0 = max($0, now) }
            underWay.withLock { $0 -= 30 }
            gate.add(30)
        }
        #expect(highest.withLock { $0 } <= 100)
        #expect(highest.withLock { $0 } >= 30)
    }

    @Test func closingWakesThoseWhoWait() async {
        let gate = CreditGate()
        await withTaskGroup(of: TesseraError.Code?.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        DispatchQueue.global().async {
                            do throws(TesseraError) {
                                try gate.take(1)
                                continuation.resume(returning: nil)
                            } catch {
                                continuation.resume(returning: error.code)
                            }
                        }
                    }
                }
            }
            try? await Task.sleep(for: .milliseconds(20))
            gate.close()
            for await code in group { #expect(code == .unreachable) }
        }
    }
}
