import Protocol

/// The tasks that wait for the end of a job.
struct JobWaiters {
    private var waiting: [JobID: [Int: CheckedContinuation<Void, Never>]] = [:]
    private var nextNumber = 0

    /// A number for `add` and `stop`.
    mutating func number() -> Int {
        nextNumber += 1
        return nextNumber
    }

    mutating func add(_ continuation: CheckedContinuation<Void, Never>, number: Int, for id: JobID) {
        waiting[id, default: [:]][number] = continuation
    }

    /// Wakes one task, if it still waits.
    mutating func stop(_ number: Int, for id: JobID) {
        waiting[id]?.removeValue(forKey: number)?.resume()
        if waiting[id]?.isEmpty == true { waiting[id] = nil }
    }

    /// Wakes all tasks that wait for the job.
    mutating func ended(_ id: JobID) { for waiter in waiting.removeValue(forKey: id) ?? [:] { waiter.value.resume() } }

    var count: Int { waiting.values.reduce(0) { $0 + $1.count } }
}
