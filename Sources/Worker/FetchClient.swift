import Core
import Dispatch
import NIOCore
import Protocol
import Synchronization
import Work

/// Fetches ranges of files from the coordinator.
final class FetchClient: RangeFetcher {
    private typealias Answer = @Sendable (Result<[UInt8], TesseraError>) -> Void

    private struct State {
        var nextRequest: UInt64 = 0
        var waiters: [UInt64: Answer] = [:]
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
        for answer in waiters { answer(.failure(Self.gone)) }
    }

    /// Asks for a range of a file.
    ///
    /// - Parameter answer: called once, with as many bytes or the reason why there are none.
    func ask(
        for range: Range<Int>, of file: InputFile, then answer: @escaping @Sendable (Result<[UInt8], TesseraError>) -> Void
    ) {
        let (number, send) = state.withLock { state in
            let number = state.nextRequest
            state.nextRequest += 1
            if state.send != nil {
                state.waiters[number] = { answer($0.flatMap { Self.check($0, range, of: file) }) }
            }
            return (number, state.send)
        }
        guard let send else { return answer(.failure(Self.gone)) }
        send(.fetch(FetchRequest(request: number, file: file, offset: range.lowerBound, length: range.count)))
    }

    private static func check(_ bytes: [UInt8], _ range: Range<Int>, of file: InputFile) -> Result<[UInt8], TesseraError> {
        guard bytes.count == range.count else {
            let problem = "asked for \(range.count) bytes, got \(bytes.count)"
            return .failure(TesseraError(.protocolMismatch, problem, file: file.path))
        }
        return .success(bytes)
    }

    /// As `ask`; blocks the calling thread until the answer arrives.
    func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8] {
        let done = DispatchSemaphore(value: 0), answer = Mutex<Result<[UInt8], TesseraError>>(.failure(Self.gone))
        ask(for: range, of: file) { result in
            answer.withLock { $0 = result }
            done.signal()
        }
        done.wait()
        return try answer.withLock { $0 }.get()
    }

    func received(_ frame: FetchedFrame) { finish(frame.request, .success(Array(frame.bytes.readableBytesView))) }

    func failed(_ failure: FetchFailed) { finish(failure.request, .failure(failure.error)) }

    private func finish(_ request: UInt64, _ result: Result<[UInt8], TesseraError>) {
        state.withLock { $0.waiters.removeValue(forKey: request) }?(result)
    }

    private static let gone = TesseraError(.unreachable, "the connection to the coordinator is gone")
}
