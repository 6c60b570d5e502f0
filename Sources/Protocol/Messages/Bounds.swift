package import Core
import Work

extension Message {
    /// Checks every number and text that the sender chose, so that no arithmetic on them overflows and nothing that is kept grows
    /// without bound.
    ///
    /// - Throws: `protocolMismatch` with the field, its value and its bounds.
    package func validate() throws(TesseraError) {
        let bounds = Bounds(message: name)
        switch self {
        case .hello(let hello): try hello.validate(bounds)
        case .welcome(let welcome): try welcome.validate(bounds)
        case .heartbeat(let beat):
            try bounds.number(beat.number, "number")
            try bounds.number(beat.leases.count, "leases", 0...Limits.threads)
            for lease in beat.leases {
                try bounds.attempt(lease.attempt)
                try bounds.number(lease.bytesDone, "bytesDone", 0...Limits.byteCount)
            }
        case .heartbeatAnswer(let answer): try bounds.number(answer.number, "number")
        case .lease(let lease): try lease.validate(bounds)
        case .revoke(let revoke):
            try bounds.attempt(revoke.attempt)
            try bounds.text(revoke.reason, "reason", Limits.reasonBytes)
        case .shardDone(let done): try done.validate(bounds)
        case .shardFailed(let failed):
            try bounds.attempt(failed.attempt)
            try bounds.error(failed.error)
        case .credit(let credit): try bounds.number(credit.bytes, "bytes", 0...Limits.creditBytes)
        case .fetch(let request): try bounds.file(request.file)
        case .fetchFailed(let failed): try bounds.error(failed.error)
        case .refusal(let refusal): try bounds.error(refusal.error)
        case .goodbye(let reason): try bounds.text(reason, "content", Limits.reasonBytes)
        case .submit(let submission): try submission.validate(bounds)
        case .cancel(let cancel): try bounds.text(cancel.reason, "reason", Limits.reasonBytes)
        case .status(let status): try status.validate(bounds)
        case .statusRequest(let request):
            try bounds.text(request.prefix ?? "", "prefix", Limits.nameBytes)
            for (number, field) in [(request.after, "after"), (request.limit, "limit"), (request.workersAfter, "workersAfter")] {
                try bounds.number(number ?? 0, field, 0...Limits.byteCount)
            }
            try bounds.number(request.waitMilliseconds ?? 0, "waitMilliseconds", 0...Limits.waitMilliseconds)
        case .submitted(let submitted): try bounds.job(submitted.job)
        case .cancelled(let cancelled): try bounds.job(cancelled.job)
        case .failure(let failure):
            guard !failure.problems.isEmpty else { throw bounds.refusal("'problems' is empty; it must say what is wrong") }
        case .drain: break
        }
    }
}

/// Checks fields of one message.
struct Bounds {
    /// What the message is called.
    let message: String

    func number(_ value: Int, _ field: String, _ range: ClosedRange<Int> = 0...Int.max) throws(TesseraError) {
        guard range.contains(value) else {
            throw refusal("'\(field)' is \(value); it must be from \(range.lowerBound) to \(range.upperBound)")
        }
    }

    func number(_ value: Double, _ field: String, _ range: ClosedRange<Double>) throws(TesseraError) {
        guard range.contains(value) else {
            throw refusal("'\(field)' is \(value); it must be from \(range.lowerBound) to \(range.upperBound)")
        }
    }

    /// - Parameter limit: bytes of UTF-8.
    func text(_ text: String, _ field: String, _ limit: Int) throws(TesseraError) {
        guard text.utf8.count <= limit else {
            throw refusal("'\(field)' has \(text.utf8.count) bytes; it may have at most \(limit)")
        }
    }

    /// A name that terminals and logs show.
    func name(_ text: String, _ field: String) throws(TesseraError) {
        try self.text(text, field, Limits.nameBytes)
        guard text.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) else {
            throw refusal("'\(field)' contains control characters")
        }
    }

    func path(_ path: String, _ field: String) throws(TesseraError) {
        try text(path, field, Limits.pathBytes)
        guard !path.utf8.contains(0) else { throw refusal("'\(field)' contains a NUL byte") }
    }

    func job(_ id: JobID) throws(TesseraError) {
        guard id != .none else { throw refusal("'job' is zero, which names no job") }
    }

    func attempt(_ attempt: Attempt) throws(TesseraError) { try number(attempt.shard, "shard", 0...Limits.shards) }

    func file(_ file: InputFile) throws(TesseraError) {
        try path(file.path, "path")
        try number(file.size, "size", 0...Limits.byteCount)
        try text(file.version, "version", Limits.nameBytes)
    }

    func error(_ error: TesseraError) throws(TesseraError) {
        for (text, field) in [
            (error.problem, "problem"), (error.file ?? "", "file"), (error.tensor ?? "", "tensor"),
            (error.advice ?? "", "advice"),
        ] { try self.text(text, field, Limits.errorBytes) }
    }

    func refusal(_ problem: String) -> TesseraError {
        TesseraError(.protocolMismatch, "the message '\(message)' is out of bounds: \(problem)")
    }
}
