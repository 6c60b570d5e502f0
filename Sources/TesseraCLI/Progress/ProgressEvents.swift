import Core
import Protocol

/// A job's progress for programs: one small object for each change, at most one in a second unless the state changes.
struct ProgressEvents {
    /// The shape is a promise to programs: docs/commands.md describes it.
    struct Event: Encodable {
        let event = "progress"
        let time: String
        let job: String
        let state: JobState
        /// `state`, or what keeps a running job waiting.
        let activity: String
        let bytesDone: Int
        let bytesTotal: Int
        let shardsDone: Int
        let shardsRunning: Int
        let shardsTotal: Int
        let attempts: Int
        let workers: Int
        let seconds: Double
        let bytesPerSecond: Int?
        let secondsLeft: Double?
        let blockedReason: String?
        let error: String?
    }

    private struct Change: Equatable {
        let state: JobState
        let bytes: Int
        let shards: JobStatus.Shards
        let workers: Int
        let isBlocked: Bool
    }

    private var pace = JobPace()
    private var last: (change: Change, moment: Double)?
    private static let interval = 1.0

    /// - Parameters:
    ///   - moment: seconds on any clock.
    ///   - date: the same moment, in ISO 8601.
    /// - Returns: `nil` where nothing has changed, or the last event is too recent.
    mutating func event(_ status: Status, at moment: Double, date: String) -> Event? {
        guard let job = status.jobs.first else { return nil }
        pace.note(job)
        let change = Change(
            state: job.state, bytes: job.bytesDone, shards: job.shards, workers: status.workers.count,
            isBlocked: job.blockedReason != nil)
        if let last {
            guard change != last.change else { return nil }
            guard change.state != last.change.state || moment - last.moment >= Self.interval else { return nil }
        }
        last = (change, moment)
        return Event(
            time: date, job: job.id.description, state: job.state, activity: job.word, bytesDone: job.bytesDone,
            bytesTotal: job.bytesTotal,
            shardsDone: job.shards.committed, shardsRunning: job.shards.leased, shardsTotal: job.shards.total,
            attempts: job.attempts, workers: status.workers.count, seconds: Self.rounded(job.seconds),
            bytesPerSecond: pace.bytesPerSecond(of: job).map { Int(min($0, 1e18)) },
            secondsLeft: pace.secondsLeft(of: job).map(Self.rounded), blockedReason: job.blockedReason,
            error: job.error?.description)
    }

    /// Milliseconds are enough.
    private static func rounded(_ seconds: Double) -> Double { (min(seconds, 1e12) * 1000).rounded() / 1000 }
}

/// A note, a warning or an error for programs.
struct TextEvent: Encodable {
    let event: String
    let time: String
    /// For people.
    let text: String
    /// Of warnings and errors.
    let code: TesseraError.Code?
    let file: String?
    let line: Int?
    let tensor: String?
    let problem: String?
    let advice: String?

    init(event: String, time: String, text: String, error: TesseraError?) {
        self.event = event
        self.time = time
        self.text = text
        code = error?.code
        file = error?.file
        line = error?.line
        tensor = error?.tensor
        problem = error?.problem
        advice = error?.advice
    }
}

/// The last event of every command: how it ended.
struct EndEvent: Encodable {
    enum Outcome: String, Encodable {
        case done, failed, cancelled, interrupted
    }

    let event = "end"
    let time: String
    let outcome: Outcome
    let exitCode: Int32

    init(time: String, exitCode: Int32) {
        self.time = time
        self.exitCode = exitCode
        outcome =
            switch exitCode {
            case 0: .done
            case TesseraError.Code.cancelled.exitCode where Interruption.signal == nil: .cancelled
            case Interruption.exitCode ?? 0: .interrupted
            default: .failed
            }
    }
}
