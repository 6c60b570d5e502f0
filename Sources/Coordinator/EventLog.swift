import Core
import Logging
import Protocol

extension Logger {
    /// Logs what an operator wants to read; what happens many times a second is left out, or said at debug level.
    func note(_ event: JobEvent) {
        switch event {
        case .leased, .progressed, .committed: break
        case .added(let id, let output, let owner):
            info("job added", metadata: ["job": "\(id)", "output": "\(output)", "owner": "\(owner)"])
        case .planned(let id, let plan):
            info("job planned", metadata: ["job": "\(id)", "method": "\(plan.method)", "shards": "\(plan.shards.count)"])
        case .kept(let id, let shards):
            info("job resumed", metadata: ["job": "\(id)", "committed shards kept": "\(shards.count)"])
        case .failed(let attempt, let worker, let error):
            warning(
                "attempt failed",
                metadata: [
                    "job": "\(attempt.job)", "shard": "\(attempt.shard)", "worker": "\(worker.name)", "error": "\(error)",
                ])
        case .revoked(let attempt, let worker, let reason):
            debug(
                "lease revoked",
                metadata: [
                    "job": "\(attempt.job)", "shard": "\(attempt.shard)", "worker": "\(worker.name)", "reason": "\(reason)",
                ])
        case .stale(let attempt, let worker):
            info(
                "a result came too late and is dropped",
                metadata: [
                    "worker": "\(worker.name)", "job": "\(attempt.job)", "shard": "\(attempt.shard)",
                    "epoch": "\(attempt.epoch)", "incarnation": "\(attempt.incarnation)",
                ])
        case .ended(let id, let state, let error):
            info(
                "job ended",
                metadata: ["job": "\(id)", "state": "\(state)", "error": "\(error?.description ?? "none")"])
        case .putAside(let id, let host, let worker, let reason):
            error(
                "a host computes wrongly and is put aside",
                metadata: ["job": "\(id)", "host": "\(host)", "worker": "\(worker)", "reason": "\(reason)"])
        case .workerJoined(let worker, let address):
            info("worker joined", metadata: ["worker": "\(worker.name)", "address": "\(address)"])
        case .workerLeft(let worker, let reason):
            info("worker left", metadata: ["worker": "\(worker.name)", "reason": "\(reason)"])
        }
    }
}
