import Core
import Planning
import Testing

/// However much is wrong, a person reads some of it, once each.
@Suite struct ProblemListTests {
    private func thrown(_ list: ProblemList) -> [TesseraError] {
        #expect(throws: Problems.self) { try list.throwIfAny() }?.all ?? []
    }

    @Test func nothingIsWrong() {
        #expect(throws: Never.self) { try ProblemList(file: "recipe.yml").throwIfAny() }
    }

    /// One after the other: were earlier problems searched for each, this would not end.
    @Test func manyProblemsAreCounted() {
        var list = ProblemList(file: "recipe.yml")
        let problems = (0..<100_000).map { TesseraError(.badData, "missing \($0)", file: "recipe.yml", tensor: "t\($0)") }
        for problem in problems { list.add([problem]) }
        list.add(problems)
        let found = thrown(list)
        #expect(found.dropLast() == problems.prefix(20))
        #expect(found.last?.problem == "and 99980 more problems of this kind" && found.last?.file == "recipe.yml")
    }

    /// Equal problems of many tensors are one line, whatever comes between them; of three tensors they are three.
    @Test func equalProblemsShareALine() {
        var list = ProblemList(file: "recipe.yml")
        func problem(_ words: String, _ tensor: String, line: Int? = nil) -> TesseraError {
            TesseraError(.badData, words, line: line, tensor: tensor, advice: "x")
        }
        for index in 0..<50_000 {
            list.add([problem("missing in b", "t\(index)")])
            if index < 3 { list.add([problem("missing in c", "t\(index)")]) }
            if index < 30 { list.add([problem("has shape [\(index)]", "t\(index)")]) }
        }
        let found = thrown(list)
        let first = "missing in b (and 49999 more tensors, such as 't1', 't2')"
        #expect(found[0] == problem(first, "t0"))
        #expect(found[1...3] == [0, 1, 2].map { problem("missing in c", "t\($0)") }[...])
        #expect(found.count == 21 && found.last?.problem == "and 14 more problems of this kind")
    }

    /// A gradient gives one mistake other numbers in each layer; two lines, or two kinds, are two mistakes.
    @Test func oneMistakeIsOneProblem() {
        var list = ProblemList(file: "recipe.yml")
        func add(_ value: String, line: Int) {
            list.add([TesseraError(.badData, "the density \(value) must be at most 1", file: "recipe.yml", line: line)])
        }
        for layer in 0..<50 { add("1.\(layer)", line: 4) }
        add("-2", line: 4)
        add("1.5", line: 5)
        list.add([TesseraError(.inputMissing, "the density 1.5 must be at most 1", file: "recipe.yml", line: 4)])
        #expect(thrown(list).map(\.line) == [4, 5, 4])
        #expect(thrown(list).first?.problem == "the density 1.0 must be at most 1")
    }

    @Test func twentyAreShownWithoutACount() {
        var list = ProblemList(file: nil)
        let problems = (0..<20).map { TesseraError(.badData, "missing \($0)", tensor: "t\($0)") }
        list.add(problems)
        #expect(thrown(list) == problems)
    }
}
