import Core

/// What an error blames, whichever worker says so: where workers on several hosts blame the same, the fault is none of theirs.
struct FailureCause: Sendable, Hashable {
    /// The last two components of the file's path, since hosts may mount its directory at different places; else what is wrong.
    private let text: String
    /// Whether one worker is enough to say so: the data or the recipe are wrong, wherever they are read.
    private let isVerdict: Bool

    private static let textLimit = 500

    /// - Returns: `nil` for an error that names no file and may be the worker's own, such as a lack of memory.
    init?(_ error: TesseraError) {
        isVerdict = FailureScope(error.code) == .job
        if let file = error.file {
            text = FilePath.components(of: file).suffix(2).joined(separator: "/").shortened(to: Self.textLimit)
        } else if isVerdict {
            text = error.problem.shortened(to: Self.textLimit)
        } else {
            return nil
        }
    }

    /// What all of them blame, given the last error of each that failed.
    ///
    /// - Parameter places: the hosts of those that failed.
    static func common(_ causes: some Sequence<FailureCause?>, places: Int) -> FailureCause? {
        var common: FailureCause?, isSure = places > 1
        for cause in causes {
            guard let cause, common == nil || cause == common else { return nil }
            common = cause
            isSure = isSure || cause.isVerdict
        }
        return isSure ? common : nil
    }

    // A read that fails in the middle is no verdict, the next one that finds the file cut short is.
    static func == (left: FailureCause, right: FailureCause) -> Bool { left.text == right.text }
    func hash(into hasher: inout Hasher) { hasher.combine(text) }
}
