import Protocol

/// How fast a job goes, by what it did in the last half minute of work: an average since submission would count time in which
/// nobody worked, and shards that an earlier process did.
struct JobPace {
    private struct Sample {
        /// Since the job's submission, without the time in which nobody worked on it.
        let seconds: Double
        /// The time that was left out.
        let waited: Double
        let bytes: Int
    }

    private var samples: [Sample] = []
    /// Whether anything has been done since the first look at the job: before, nobody knows how fast it goes.
    private var hasMoved = false
    /// Seconds that are looked back on, and between samples.
    private static let window = 30.0, step = 0.5
    /// Seconds of watching that say something.
    private static let least = 1.0

    /// To be called each time that the job's status is known.
    mutating func note(_ job: JobStatus) {
        let waited = job.secondsWaited ?? 0, seconds = job.seconds - waited
        if let last = samples.last {
            // A coordinator that starts again counts anew, and may have lost what was not durable.
            if job.bytesDone < last.bytes || seconds < last.seconds || waited < last.waited { (samples, hasMoved) = ([], false) }
            if job.bytesDone > last.bytes { hasMoved = true }
            if let last = samples.last, seconds - last.seconds < Self.step { return }
        }
        samples.append(Sample(seconds: seconds, waited: waited, bytes: job.bytesDone))
        // The oldest sample is the last one before the window.
        while samples.count > 2, samples[1].seconds <= seconds - Self.window { samples.removeFirst() }
    }

    /// Bytes in each second; `nil` while that is not known.
    var bytesPerSecond: Double? {
        guard hasMoved, let first = samples.first, let last = samples.last, last.seconds - first.seconds >= Self.least else {
            return nil
        }
        return Double(last.bytes - first.bytes) / (last.seconds - first.seconds)
    }

    /// The same for a job that workers are at; `nil` for one that waits, whatever it did before.
    func bytesPerSecond(of job: JobStatus) -> Double? { job.isMoving ? bytesPerSecond : nil }

    /// Seconds until the stages that are planned so far are done; `nil` where nobody can say.
    func secondsLeft(of job: JobStatus) -> Double? {
        bytesPerSecond(of: job).flatMap(job.secondsLeft)
    }
}

extension JobStatus {
    /// Until everything is done at so many bytes per second; `nil` where nobody can say.
    func secondsLeft(at rate: Double) -> Double? {
        guard rate > 0, bytesDone < bytesTotal else { return nil }
        let seconds = Double(bytesTotal - bytesDone) / rate
        return seconds < 1e9 ? seconds : nil
    }

    /// Done of all, from 0 to 1.
    var share: Double { bytesTotal > 0 ? Double(bytesDone) / Double(bytesTotal) : state.isEnd || state == .publishing ? 1 : 0 }

    /// Whole per cent, 100 only where nothing is left.
    var percent: Int { Int(share * 100) }

    /// Whether workers are at it: what was done in the last half minute then says something about the next.
    var isMoving: Bool { state == .running && activity == nil }

    /// Attempts that came to nothing.
    var repeated: Int { max(0, attempts - shards.committed - shards.leased) }
}
