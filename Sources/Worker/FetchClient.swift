import Core
import Dispatch
import NIOCore
import Protocol
import Synchronization
import Work

/// Fetches ranges of files from the coordinator; blocks the calling thread until the answer arrives.
final class FetchClient: RangeFetcher {
    private final class Waiter: Sendable {
        let done = DispatchSemaphore(value: 0)
        let answer = Mutex<Result<[UInt8], TesseraError>?>(nil)

        func finish(_ result: Result<[UInt8], TesseraError>) {
            answer.withLock { $0 = $0 ?? result }
            done.signal()
        }
    }

    private struct State {
        var nextRequest: UInt64 = 0
        var waiters: [UInt64: Waiter] = [:]
        var send: (@Sendable (Message) -> Void)?
    }

    private let state = Mutex(State())

    /// A connection is open and takes requests.
    func open(_ send: @escaping @Sendable (Message) -> Void) { state.withLock { $0.send = send } }

    /// The connection has closed: every pending request fails.
    func close() {
        let waiters = state.withLock { state in
            state.send = nil
            defer { state.waiters = [:] }
            return state.waiters.values
        }
        for waiter in waiters { waiter.finish(.failure(Self.gone)) }
    }

    func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8] {
        let waiter = Waiter()
        let (number, send) = state.withLock { state in
            let number = state.nextRequest
            state.nextRequest += 1
            if state.send != nil { state.waiters[number] = waiter }
            return (number, state.send)
        }
        guard let send else { throw Self.gone }
        send(.fetch(FetchRequest(request: number, file: file, offset: range.lowerBound, length: range.count)))
        waiter.done.wait()
        let bytes = try waiter.answer.withLock { $0 }?.get() ?? []
        guard bytes.count == range.count else {
            throw TesseraError(.protocolMismatch, "asked for \(range.count) bytes, got \(bytes.count)", file: file.path)
        }
        return bytes
    }

    func received(_ frame: FetchedFrame) { finish(frame.request, .success(Array(frame.bytes.readableBytesView))) }

    func failed(_ failure: FetchFailed) { finish(failure.request, .failure(failure.error)) }

    private func finish(_ request: UInt64, _ result: Result<[UInt8], TesseraError>) {
        state.withLock { $0.waiters.removeValue(forKey: request) }?.finish(result)
    }

    private static let gone = TesseraError(.unreachable, "the connection to the coordinator is gone")
}
