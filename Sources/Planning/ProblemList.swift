package import Core

/// Collects problems without end but shows no more of one kind than a person reads.
package struct ProblemList {
    private let file: String?
    /// Those that are shown.
    private var problems: [TesseraError] = []
    private var count = 0
    private var seen: Set<TesseraError> = []
    private static let shownLimit = 20

    package init(file: String?) { self.file = file }

    /// The same complaint about the recipe itself, met at every tensor, is kept once, though a gradient gives it other numbers in
    /// each layer.
    package mutating func add(_ more: [TesseraError]) {
        for problem in more where seen.insert(Self.key(of: problem)).inserted {
            count += 1
            if count <= Self.shownLimit { problems.append(problem) }
        }
    }

    /// What makes two problems the same: of a complaint about a line of the recipe, the line and the words without their numbers.
    private static func key(of problem: TesseraError) -> TesseraError {
        guard let line = problem.line, problem.tensor == nil else { return problem }
        return TesseraError(problem.code, problem.problem.filter { !$0.isNumber && !".-".contains($0) }, line: line)
    }

    /// - Throws: the problems that are shown, and one that counts the others.
    package func throwIfAny() throws(Problems) {
        guard count > 0 else { return }
        let rest = count - Self.shownLimit
        throw Problems(
            problems + (rest > 0 ? [TesseraError(.badData, "and \(rest) more problems of this kind", file: file)] : []))
    }
}
