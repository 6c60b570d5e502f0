import Core

/// What went wrong with a shard, and with whom. Most shards have none.
struct FailureHistory: Sendable {
    /// Failed attempts by `Scheduler.Worker.key`.
    private(set) var attempts: [String: Int] = [:]
    /// Failed attempts in all, also those that no worker is to blame for.
    private(set) var count = 0
    /// The hosts of workers that failed.
    private(set) var hosts: Set<String> = []
    /// What each of these workers blamed last.
    private var causes: [String: FailureCause?] = [:]
    /// Workers that blamed the job (`FailureScope.job`).
    private(set) var verdicts: Set<String> = []
    /// Workers whose connection ended while they had the shard.
    private(set) var left: Set<String> = []
    /// Those of them whose process ended, and their hosts.
    private(set) var lost: Set<String> = []
    private(set) var lostHosts: Set<String> = []
    /// How often a worker was lost with the shard, and the number of the first of these losses among all that there were.
    private var losses = 0, firstLoss = 0

    /// - Parameter worker: `nil` when no worker is to blame.
    mutating func failed(_ error: TesseraError, by worker: Scheduler.Worker?) {
        count += 1
        guard let worker else { return }
        attempts[worker.key, default: 0] += 1
        hosts.insert(worker.host)
        causes[worker.key] = .some(FailureCause(error))
        if FailureScope(error.code) == .job { verdicts.insert(worker.key) }
    }

    /// What all workers that failed blame; `nil` where they may be at fault themselves.
    var commonCause: FailureCause? { FailureCause.common(causes.values, places: hosts.count) }

    /// - Parameters:
    ///   - isLoss: whether the worker's process ended.
    ///   - number: of losses of workers so far, this one with them.
    mutating func left(_ worker: Scheduler.Worker, isLoss: Bool, number: Int) {
        left.insert(worker.key)
        guard isLoss else { return }
        losses += 1
        if losses == 1 { firstLoss = number }
        lost.insert(worker.key)
        lostHosts.insert(worker.host)
    }

    /// How many workers were lost without the shard since the first was lost with it.
    ///
    /// - Parameter number: of losses of workers so far.
    func lossesElsewhere(_ number: Int) -> Int { number - firstLoss + 1 - losses }

    /// Workers that had better not be given the shard.
    var avoids: Set<String> { left.union(attempts.keys) }
}

/// Where another attempt at a shard may succeed, going by what one worker says.
enum FailureScope {
    /// Anywhere, later: what fails now may pass.
    case passing
    /// At another worker: this one lacks memory, permissions or a mount.
    case worker
    /// Nowhere, unless the worker is wrong: the data are bad.
    case job

    init(_ code: TesseraError.Code) {
        self =
            switch code {
            case .unreachable, .io, .temporary, .inputMissing: .passing
            case .usage, .cannotCreate, .notAllowed, .internal: .worker
            case .badData, .protocolMismatch, .difference, .cancelled: .job
            }
    }
}
