package import Core

/// The options of a submitted job.
package struct JobOptions: Sendable, Hashable, Codable {
    /// Replace an output that Tessera wrote.
    package var overwrite: Bool
    /// Also write `SHA256SUMS`.
    package var sha256Sums: Bool
    /// Refuse recipes with unknown keys.
    package var strict: Bool
    /// Bytes; `nil` for the default.
    package var maxPartBytes: Int?
    /// Bytes of output in a shard; `nil` for the default.
    package var shardBytes: Int?
    /// The seed of random methods; `nil` for the default, 0.
    package var seed: UInt64?
    /// Also write `tessera.provenance.json`; `nil` for no.
    package var provenance: Bool?
    /// Pin inputs by the digests of whole files; `nil` for no, by samples.
    package var fullInputs: Bool?
    /// The share of the shards that is done again on another host, 0...1; `nil` for the coordinator's own choice.
    package var audit: Double?
    /// What people call the job.
    package var name: String?
    /// Also write the recipe as `mergekit_config.yml`; `nil` for no.
    package var mergekitConfig: Bool?
    /// Whether to write a model card, README.md; `nil` for yes.
    package var modelCard: Bool?

    package init(
        overwrite: Bool = false, sha256Sums: Bool = false, strict: Bool = false, maxPartBytes: Int? = nil, shardBytes: Int? = nil,
        seed: UInt64? = nil, provenance: Bool? = nil, fullInputs: Bool? = nil, audit: Double? = nil,
        name: String? = nil, mergekitConfig: Bool? = nil, modelCard: Bool? = nil
    ) {
        self.modelCard = modelCard
        self.name = name
        self.mergekitConfig = mergekitConfig
        self.audit = audit
        self.fullInputs = fullInputs
        self.overwrite = overwrite
        self.sha256Sums = sha256Sums
        self.strict = strict
        self.maxPartBytes = maxPartBytes
        self.shardBytes = shardBytes
        self.seed = seed
        self.provenance = provenance
    }
}

/// A job for the coordinator; the answer is `Submitted` or `Failure`.
package struct Submit: Sendable, Hashable, Codable {
    /// The recipe's text.
    package let recipe: String
    /// The recipe's name in error messages.
    package let recipeName: String
    /// Where the lines of the recipe come from, if the submitter has changed its file; `nil` for the file itself.
    package let recipeOrigins: LineOrigins?
    /// The directory to which relative paths in the recipe and of the output refer.
    package let workingDirectory: String
    package let output: String
    package var options: JobOptions
    /// Submissions with the same key are one job; `nil` for a key of plan, output and options.
    package let idempotencyKey: String?

    package init(
        recipe: String, recipeName: String, recipeOrigins: LineOrigins? = nil, workingDirectory: String, output: String,
        options: JobOptions, idempotencyKey: String? = nil
    ) {
        self.recipeOrigins = recipeOrigins
        self.idempotencyKey = idempotencyKey
        self.recipe = recipe
        self.recipeName = recipeName
        self.workingDirectory = workingDirectory
        self.output = output
        self.options = options
    }
}

extension Submit {
    func validate(_ bounds: Bounds) throws(TesseraError) {
        try bounds.path(recipeName, "recipeName")
        if let recipeOrigins { try recipeOrigins.validate(bounds) }
        try bounds.path(workingDirectory, "workingDirectory")
        try bounds.path(output, "output")
        if let idempotencyKey { try bounds.name(idempotencyKey, "idempotencyKey") }
        if let bytes = options.maxPartBytes { try bounds.number(bytes, "maxPartBytes", 1...Limits.byteCount) }
        if let bytes = options.shardBytes { try bounds.number(bytes, "shardBytes", 1...Limits.byteCount) }
        if let name = options.name { try bounds.name(name, "name") }
        if let share = options.audit, !(0...1).contains(share) { throw bounds.refusal("'audit' is \(share), not from 0 to 1") }
    }
}

extension LineOrigins {
    fileprivate func validate(_ bounds: Bounds) throws(TesseraError) {
        for setting in settings { try bounds.path(setting, "recipeOrigins") }
        let known = -settings.count...Limits.byteCount
        for line in lines { try bounds.number(line, "recipeOrigins", known) }
    }
}

package struct Submitted: Sendable, Hashable, Codable {
    package let job: JobID
    /// The plan's notes.
    package let remarks: [String]
    /// What is odd about the recipe and probably a mistake; `nil` for nothing.
    package let warnings: [TesseraError]?

    package init(job: JobID, remarks: [String], warnings: [TesseraError] = []) {
        self.job = job
        self.remarks = remarks
        self.warnings = warnings.isEmpty ? nil : warnings.map(\.bounded)
    }
}

/// Asks for a page of the jobs, of one job's shards, or of the workers; the answer is `Status` or `Failure`.
///
/// Without any field it asks for the first page of jobs and the first page of workers.
package struct StatusRequest: Sendable, Hashable, Codable {
    /// The job whose shards are wanted; `nil` for jobs.
    package var job: JobID?
    /// Only jobs whose id begins with this text, without their shards.
    package var prefix: String?
    /// `Status.next` of the page before; `nil` for the first page.
    package var after: Int?
    /// Rows of the page at most; the coordinator may send fewer. With 0 the answer has no shards, and no workers beside one job.
    package var limit: Int?
    /// `Status.nextWorkers` of the page before: asks for workers alone.
    package var workersAfter: Int?
    /// Beside a job: only the shards that are worked on.
    package var running: Bool?
    /// Beside a job: how long the answer may wait for the job's end.
    package var waitMilliseconds: Int?

    package init(
        job: JobID? = nil, prefix: String? = nil, after: Int? = nil, limit: Int? = nil, workersAfter: Int? = nil,
        running: Bool? = nil, waitMilliseconds: Int? = nil
    ) {
        self.waitMilliseconds = waitMilliseconds
        self.running = running
        self.job = job
        self.prefix = prefix
        self.after = after
        self.limit = limit
        self.workersAfter = workersAfter
    }
}

/// Ends a job; the answer is `Cancelled` or `Failure`.
package struct Cancel: Sendable, Hashable, Codable {
    package let job: JobID
    package let reason: String

    package init(job: JobID, reason: String) {
        self.job = job
        self.reason = reason
    }
}

package struct Cancelled: Sendable, Hashable, Codable {
    package let job: JobID

    package init(job: JobID) { self.job = job }
}

/// A request could not be met.
package struct Failure: Sendable, Hashable, Codable {
    /// How many problems are told; whoever mends so many asks again.
    private static let limit = 100

    /// At least one.
    package let problems: [TesseraError]

    /// - Parameter problems: shortened, and beyond the first hundred only counted.
    package init(problems: [TesseraError]) {
        self.problems =
            problems.prefix(Self.limit).map(\.bounded)
            + (problems.count > Self.limit
                ? [TesseraError(problems[0].code, "and \(problems.count - Self.limit) further problems")] : [])
    }
}
