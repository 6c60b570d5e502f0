package import Core

/// Collects problems without end but shows no more of one kind than a person reads.
package struct ProblemList {
    /// What is wrong in the same words with one tensor or with many.
    private struct Group {
        var count = 0
        /// The first of them.
        var problems: [TesseraError] = []

        /// Few are told one by one, many in one line; and how many problems each line tells.
        var told: [(line: TesseraError, count: Int)] {
            guard count > ProblemList.singleLimit, var problem = problems.first else { return problems.map { ($0, 1) } }
            let names = problems.dropFirst().compactMap { $0.tensor.map { "'\($0)'" } }
            problem.problem += " (and \(count - 1) more tensors, such as \(names.joined(separator: ", ")))"
            return [(problem, count)]
        }
    }

    private let file: String?
    /// In the order of their first problems.
    private var groups: [Group] = []
    private var indices: [TesseraError: Int] = [:]
    private var seen: Set<TesseraError> = []
    private static let shownLimit = 20, singleLimit = 3

    package init(file: String?) { self.file = file }

    /// The same complaint about the recipe itself, met at every tensor, is kept once, though a gradient gives it other numbers in
    /// each layer.
    package mutating func add(_ more: [TesseraError]) {
        for problem in more where seen.insert(Self.key(of: problem)).inserted {
            var kind = problem
            kind.tensor = nil
            let index = problem.tensor == nil ? groups.count : indices[kind, default: groups.count]
            if index == groups.count { groups.append(Group()) }
            if problem.tensor != nil { indices[kind] = index }
            groups[index].count += 1
            if groups[index].count <= Self.singleLimit { groups[index].problems.append(problem) }
        }
    }

    /// What makes two problems the same: of a complaint about a line of the recipe, the line and the words without their numbers.
    private static func key(of problem: TesseraError) -> TesseraError {
        guard let line = problem.line, problem.tensor == nil else { return problem }
        return TesseraError(problem.code, problem.problem.filter { !$0.isNumber && !".-".contains($0) }, line: line)
    }

    /// - Throws: the problems that are shown, and one that counts the others.
    package func throwIfAny() throws(Problems) {
        guard !groups.isEmpty else { return }
        let told = groups.prefix(Self.shownLimit).flatMap(\.told).prefix(Self.shownLimit)
        let rest = groups.reduce(0) { $0 + $1.count } - told.reduce(0) { $0 + $1.count }
        throw Problems(
            told.map(\.line) + (rest > 0 ? [TesseraError(.badData, "and \(rest) more problems of this kind", file: file)] : []))
    }
}
