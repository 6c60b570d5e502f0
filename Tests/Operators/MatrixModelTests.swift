import TestSupport
import Testing

@testable import Operators

/// Methods on whole matrices that depend on more than one matrix, or merge matrices in bases of their own.
extension MatrixMethodTests {
    private func norm(_ vector: [Double]) -> Double { vector.reduce(0) { $0 + $1 * $1 }.squareRoot() }

    /// The update has the mean norm of the tasks, and what lies along earlier tasks is taken out: a task that comes again adds
    /// nothing.
    @Test func opcmKeepsTheNormAndAddsOnlyWhatIsNew() throws {
        let vectors = Self.models(3), norms = vectors.map { norm($0.map(Double.init)) }
        let found = try update("opcm", vectors)
        #expect((norm(found) / (norms.reduce(0, +) / 3) - 1).magnitude < 1e-6)
        #expect(try update("opcm", [vectors[1], vectors[0], vectors[2]]) != found)
        expectEqual(try update("opcm", [vectors[0], vectors[0]]), vectors[0].map(Double.init), "again")
        // Tensors that are no matrices take part in the norm.
        let sum = Self.sum(vectors), mean = norms.reduce(0, +) / 3
        expectEqual(try update("opcm", vectors, shape: [108]), sum.map { $0 * mean / norm(sum) }, "a vector")
    }

    /// With a share of 0, only the diagonal of the next task in the update's singular vectors is taken out.
    @Test func opcmTakesTheDiagonalOut() throws {
        var diagonal = [Float](repeating: 0, count: 36)
        for index in 0..<6 { diagonal[index * 7] = Float(6 - index) }
        let other = Self.models(1, shape: [6, 6], seed: 3)[0]
        var expected = zip(diagonal, other).map { Double($0 + $1) }
        for index in 0..<6 { expected[index * 7] = Double(diagonal[index * 7]) }
        let mean = (norm(diagonal.map(Double.init)) + norm(other.map(Double.init))) / 2
        let scale = mean / norm(expected)
        expectEqual(
            try update("opcm", [diagonal, other], shape: [6, 6], ["alpha": .number(0)]), expected.map { $0 * scale }, "diagonal")
        // 6 + 5 + 4 of 21 are less than the share: the block has three rows.
        for row in 0..<3 {
            for column in 0..<3 where row != column { expected[row * 6 + column] = 0 }
        }
        expectEqual(
            try update("opcm", [diagonal, other], shape: [6, 6], ["alpha": .number(0.8)]),
            expected.map { $0 * mean / norm(expected) }, "block")
    }

    /// Without a step, each task has the norm `eta`; where all directions are shared, no step changes anything.
    @Test func dogeCorrectsOnlyOutsideTheSharedDirections() throws {
        let vectors = Self.models(3, shape: [9, 12]), all: [String: ParameterValue] = ["density": .number(1)]
        var expected = [Double](repeating: 0, count: 108)
        for vector in vectors {
            let norm = norm(vector.map(Double.init))
            for (index, value) in vector.enumerated() { expected[index] += 0.07 * Double(value) / norm }
        }
        func found(_ shared: [String: ParameterValue]) throws -> [Double] {
            try update("doge", vectors, shape: [9, 12], all.merging(shared) { _, own in own })
        }
        expectEqual(try found(["steps": .number(0)]), expected, "no steps")
        expectEqual(try found(["subspace_divisor": .number(1)]), expected, "all directions")
        let corrected = try found(["learning_rate": .number(0.01)])
        let change = zip(corrected, expected).map { $0 - $1 }
        #expect(norm(change) > 1e-3 * norm(expected))
    }

    /// A share of the whole model: of 108 entries, 33 stay.
    @Test func dogeKeepsTheLargestEntries() throws {
        let vector = Self.models(1)[0]
        let found = try update("doge", [vector], ["steps": .number(0)])
        let kept = vector.map(\.magnitude).sorted(by: >)[32]
        #expect(found.count { $0 != 0 } == 33)
        for (value, result) in zip(vector, found) { #expect((value.magnitude >= kept) == (result != 0)) }
        #expect(try update("doge", [vector], ["include": .flag(false)]).allSatisfy { $0 == 0 })
    }

    /// Nothing is lost between whole matrices and cores: rules that know no coordinates give the same.
    @Test func coresOfFullRankAreWholeMatrices() throws {
        let vectors = Self.models(3), sum = Self.sum(vectors), rank = ParameterValue.number(9)
        expectEqual(try update("core_space", vectors, ["rule": .text("sum"), "rank": rank]), sum, "sum")
        expectEqual(try update("core_space", vectors, ["rule": .text("mean"), "rank": rank]), sum.map { $0 / 3 }, "mean")
        let isotropic = try update("core_space", vectors, ["rule": .text("sum"), "isotropic": .flag(true), "rank": rank])
        expectEqual(isotropic, try update("iso_c", vectors), "isotropic")
        // Cut to rank 1, what is left of each task has rank 1.
        let cut = try update("core_space", vectors, ["rule": .text("sum"), "rank": .number(1)])
        #expect(norm(cut) < 0.9 * norm(sum) && norm(cut) > 0)
    }

    /// Tasks in different directions meet in no aligned entry, so that the mean of those that agree is each of them.
    @Test func knotsOfOrthogonalTasksAreTheirSum() throws {
        var vectors = [[Float]](repeating: [Float](repeating: 0, count: 100), count: 2)
        for column in 0..<10 {
            vectors[0][column] = Float(column + 1)
            vectors[1][90 + column] = Float(20 - 3 * column)
        }
        let sum = zip(vectors[0], vectors[1]).map { Double($0 + $1) }
        // The 10 entries of each task that are more than rounding.
        let all: [String: ParameterValue] = ["density": .number(0.45), "lambda": .number(1)]
        expectEqual(try update("knots", vectors, shape: [10, 10], all), sum, "knots")
        // Of 20 entries of each task, the 5 of a share of 0.2 stay.
        let few = try update("knots", vectors, shape: [10, 10], ["lambda": .number(1)])
        #expect(few.count { $0.magnitude > 1e-9 } <= 10 && norm(few) < norm(sum) && norm(few) > 0)
    }

    /// Directions that are only rounding of the fold are not taken out of the next task.
    @Test func opcmDoesNotMistakeRoundingForDirections() throws {
        let base = Self.models(1, seed: 9)[0]
        let factors = Self.models(2, shape: [12], seed: 4).map { $0.map(Double.init) }
        let others = Self.models(2, shape: [9], seed: 5).map { $0.map { Double($0) / 64 } }
        var exact: [[Double]] = [], folded: [[Float]] = []
        for (column, row) in zip(factors, others) {
            let product = column.flatMap { entry in row.map { entry * $0 } }
            exact.append(product)
            folded.append(zip(base, product).map { Float(Double($0) + $1) })
        }
        let found = try Bench(sources: ([base] + folded).map { TestTensor($0, shape: Self.shape) }, base: 0).run(OPCM.self).values
        // The first task has one direction on each side; what the second has along both is taken out.
        func dot(_ one: [Double], _ other: [Double]) -> Double { zip(one, other).reduce(0) { $0 + $1.0 * $1.1 } }
        let share = dot(exact[0], exact[1]) / dot(exact[0], exact[0])
        var expected = zip(exact[0], exact[1]).map { $0 + $1 - share * $0 }
        let mean = (norm(exact[0]) + norm(exact[1])) / 2, length = norm(expected)
        expected = expected.map { $0 * mean / length }
        var worst = 0.0
        for place in 0..<108 { worst = max(worst, (found[place] - Double(base[place]) - expected[place]).magnitude) }
        #expect(worst < 1e-6, "\(worst) of \(length)")
    }
}
