import Core
import Logging
import Protocol

extension Logger {
    /// Logs what an operator wants to read; what happens many times a second is left out, or said at debug level.
    func note(_ event: JobEvent) {
        switch event {
        case .progressed, .reported: break
        case .leased(let attempt, let worker):
            debug(
                "shard leased",
                metadata: [
                    "job": "\(attempt.job)", "shard": .stringConvertible(attempt.shard), "worker": "\(worker.name)",
                    "epoch": .stringConvertible(attempt.epoch),
                ])
        case .committed(let attempt, let worker, let byteCount, let delivery):
            debug(
                "shard committed",
                metadata: [
                    "job": "\(attempt.job)", "shard": .stringConvertible(attempt.shard), "worker": "\(worker.name)",
                    "bytes": .stringConvertible(byteCount),
                    "delivery": "\(delivery)",
                ])
        case .added(let id, let output, let owner):
            info("job added", metadata: ["job": "\(id)", "output": "\(output)", "owner": "\(owner)"])
        case .planned(let id, let plan):
            info(
                "job planned",
                metadata: ["job": "\(id)", "method": "\(plan.method)", "shards": .stringConvertible(plan.shards.count)])
        case .repeated(let id, let shards):
            info(
                "shards are done again on other hosts",
                metadata: ["job": "\(id)", "shards": .stringConvertible(shards.count)])
        case .unaudited(let id, let shards):
            warning(
                "shards are not audited: no second host was there",
                metadata: ["job": "\(id)", "shards": .stringConvertible(shards)])
        case .kept(let id, let shards):
            info("job resumed", metadata: ["job": "\(id)", "kept": .stringConvertible(shards.count)])
        case .failed(let attempt, let worker, let error):
            warning(
                "attempt failed",
                metadata: [
                    "job": "\(attempt.job)", "shard": .stringConvertible(attempt.shard), "worker": "\(worker.name)",
                    "address": "\(worker.address)", "error": "\(error)",
                ])
        case .revoked(let attempt, let worker, let reason, _):
            debug(
                "lease revoked",
                metadata: [
                    "job": "\(attempt.job)", "shard": .stringConvertible(attempt.shard), "worker": "\(worker.name)",
                    "reason": "\(reason)",
                ])
        case .stale(let attempt, let worker):
            info(
                "a result came too late and is dropped",
                metadata: [
                    "worker": "\(worker.name)", "job": "\(attempt.job)", "shard": .stringConvertible(attempt.shard),
                    "epoch": .stringConvertible(attempt.epoch), "incarnation": .stringConvertible(attempt.incarnation),
                ])
        case .paused(let id, let error):
            let about: Logger.Metadata = ["job": "\(id)", "error": "\(error)"]
            warning("job paused until it can go on; the coordinator tries again by itself", metadata: about)
        case .resumed(let id): notice("job goes on", metadata: ["job": "\(id)"])
        case .ended(let id, let state, let error):
            var metadata: Logger.Metadata = ["job": "\(id)", "state": "\(state)"]
            if let error { metadata["error"] = "\(error)" }
            log(level: state == .failed ? .warning : .info, "job ended", metadata: metadata)
        case .putAside(let id, let host, let worker, let reason):
            error(
                "a host computes wrongly and is put aside",
                metadata: ["job": "\(id)", "host": "\(host)", "worker": "\(worker)", "reason": "\(reason)"])
        case .copyDiffers(let id, let worker, let problem):
            warning(
                "a worker's copy of an input is not used",
                metadata: ["job": "\(id)", "worker": "\(worker.name)", "address": "\(worker.address)", "problem": "\(problem)"])
        case .workerJoined(let worker):
            info("worker joined", metadata: ["worker": "\(worker.name)", "address": "\(worker.address)"])
        case .workerLeft(let worker, let reason, let isOrderly):
            let metadata: Logger.Metadata = [
                "worker": "\(worker.name)", "address": "\(worker.address)", "reason": "\(reason)",
            ]
            if isOrderly { info("worker left", metadata: metadata) } else { warning("worker lost", metadata: metadata) }
        }
    }
}
