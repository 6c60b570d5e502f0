/// A limit on work that others have asked for. Loops over what others wrote ask now and then whether to go on, so that work that
/// takes too long, or that nobody wants any more, ends wherever it is.
package struct Effort: Sendable {
    private let check: @Sendable () throws(TesseraError) -> Void

    @TaskLocal private static var current: Effort?

    /// Runs `body`, in which every `Effort.spend()` calls `check`.
    ///
    /// - Parameter check: throws once the work is to end.
    package static func limited<Result>(
        by check: @escaping @Sendable () throws(TesseraError) -> Void, _ body: () throws -> Result
    ) rethrows -> Result {
        try $current.withValue(Effort(check: check)) { try body() }
    }

    /// - Throws: what the check of the work's limit throws; nothing outside of `limited(by:_:)`.
    package static func spend() throws(TesseraError) { try current?.check() }
}
