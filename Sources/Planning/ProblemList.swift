import Core

/// Collects problems without end but shows no more of one kind than a person reads.
struct ProblemList {
    let file: String?
    private var problems: [TesseraError] = []
    private static let shownLimit = 20

    init(file: String?) { self.file = file }

    /// The same complaint about the recipe itself, met at every tensor, is kept once, though a gradient gives it other numbers in each layer.
    mutating func add(_ more: [TesseraError]) {
        for problem in more where !problems.contains(where: { $0 == problem || isSameLine($0, problem) }) {
            problems.append(problem)
        }
    }

    private func isSameLine(_ left: TesseraError, _ right: TesseraError) -> Bool {
        func words(_ error: TesseraError) -> String { error.problem.filter { !$0.isNumber && !".-".contains($0) } }
        return left.line != nil && left.line == right.line && left.tensor == nil && words(left) == words(right)
    }

    func throwIfAny() throws(Problems) {
        guard !problems.isEmpty else { return }
        let rest = problems.count - Self.shownLimit
        throw Problems(
            Array(problems.prefix(Self.shownLimit))
                + (rest > 0 ? [TesseraError(.badData, "and \(rest) more problems of this kind", file: file)] : []))
    }
}
