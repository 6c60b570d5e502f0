import Core
import LinearAlgebra
import Operators
import Synchronization
import TestSupport
import Testing

/// What the decompositions promise, for shapes and values that are hard.
@Suite struct DecompositionTests {
    static let shapes = [[1, 1], [1, 7], [7, 1], [5, 5], [12, 5], [5, 12], [70, 33]]
    private static func space() -> MatrixSpace { MatrixSpace(elements: 1 << 22) }

    static func random(_ shape: [Int], seed: UInt64 = 1, scale: Double = 1, in space: MatrixSpace = space()) throws -> Matrix {
        var random = SplitMix(seed: seed)
        let matrix = try space.matrix(rows: shape[0], columns: shape[1])
        for index in matrix.elements.indices { matrix.elements[index] = Double.random(in: -1...1, using: &random) * scale }
        return matrix
    }

    private func expectEqual(_ found: Matrix, _ expected: Matrix, _ tolerance: Double = 1e-13) {
        let norm = expected.squaredNorm.squareRoot(), difference = try? found.copy()
        difference?.add(expected, scale: -1)
        #expect((difference?.squaredNorm.squareRoot() ?? .infinity) <= tolerance * norm, "\(found.rows) x \(found.columns)")
    }

    private func expectIdentity(_ matrix: Matrix, _ tolerance: Double = 1e-12) {
        for row in 0..<matrix.rows {
            for column in 0..<matrix.columns {
                #expect((matrix[row, column] - (row == column ? 1 : 0)).magnitude < tolerance)
            }
        }
    }

    @Test(arguments: shapes, [1.0, 1e-150, 1e150])
    func singularValuesRebuildTheMatrix(shape: [Int], scale: Double) throws {
        let matrix = try Self.random(shape, scale: scale), found = try matrix.copy().singularValues()
        #expect(found.values == found.values.sorted(by: >) && found.values.allSatisfy { $0 > 0 })
        expectIdentity(try found.left.transposed.times(found.left.view()), 1e-10)
        expectIdentity(try found.right.view().times(found.right.transposed), 1e-10)
        for column in 0..<found.left.columns {
            let entries = (0..<found.left.rows).map { found.left[$0, column] }
            #expect((entries.max { $0.magnitude < $1.magnitude } ?? 0) > 0, "the sign is fixed")
        }
        let values = found.values
        expectEqual(try found.rebuilt(with: values), matrix)
    }

    /// Products of the elements of such Gram matrices are 0 or infinite.
    @Test(arguments: [1, 0x1p-250, 0x1p250])
    func eigenvaluesRebuildTheMatrix(scale: Double) throws {
        for size in [1, 2, 5, 40] {
            let matrix = try Self.random([size + 3, size], scale: scale), gram = try matrix.transposed.times(matrix.view())
            let found = try gram.copy().eigenvalues()
            #expect(found.values == found.values.sorted(by: >))
            expectIdentity(try found.vectors.transposed.times(found.vectors.view()))
            let scaled = try found.vectors.copy()
            for (column, value) in found.values.enumerated() { scaled.scaleColumn(column, by: value) }
            expectEqual(try scaled.view().times(found.vectors.transposed), gram)
        }
    }

    /// With fewer vectors, all values and those vectors are the same.
    @Test(arguments: shapes)
    func theFirstVectorsAreThoseOfAll(shape: [Int]) throws {
        let matrix = try Self.random(shape), rank = shape.min() ?? 0, all = try matrix.copy().singularValues()
        for count in Set([0, 1, rank / 2, rank]) {
            let first = try matrix.copy().singularValues(first: count)
            #expect(zip(first.values, all.values).allSatisfy { ($0 - $1).magnitude < 1e-13 * all.values[0] })
            #expect(first.values.count == rank && first.left.columns == count && first.right.rows == count)
            expectEqual(first.left, try all.left.firstColumns(count), 1e-9)
            expectEqual(first.right, try all.right.firstRows(count), 1e-9)
        }
    }

    @Test func aSystemIsSolvedFromTheRight() throws {
        let system = try Self.random([9, 9]), wanted = try Self.random([4, 9], seed: 2)
        let right = try wanted.view().times(system.view())
        #expect(try system.copy().solve(into: right))
        expectEqual(right, wanted, 1e-11)
        let singular = try Self.space().matrix(rows: 2, columns: 2)
        #expect(try !singular.solve(into: Self.random([1, 2])))
    }

    @Test func aPositiveDefiniteSystemIsSolvedFromTheRight() throws {
        let factor = try Self.random([12, 9]), system = try factor.transposed.times(factor.view())
        let wanted = try Self.random([4, 9], seed: 2), right = try wanted.view().times(system.view())
        try system.copy().solvePositiveDefinite(into: right)
        expectEqual(right, wanted, 1e-10)
        // Rank 2, and one negative eigenvalue.
        for column in 0..<9 { system[3, column] = system[2, column] }
        for row in 0..<9 { system[row, 3] = system[row, 2] }
        system[3, 3] = system[2, 2] - 1
        let error = #expect(throws: TesseraError.self) { try system.solvePositiveDefinite(into: Self.random([4, 9])) }
        #expect(error?.problem.contains("is not positive definite: the determinant of its first 4 of 9 rows") == true)
    }

    /// With the condition of a matrix, its Gram matrix loses digits; ill-conditioned ones take another way.
    @Test(arguments: [1e-2, 1e-4, 1e-6, 1e-9, 0], [[12, 8], [8, 12]])
    func smallSingularValuesAreExact(least: Double, shape: [Int]) throws {
        let left = try Self.random([shape[0], 8]).polar(), right = try Self.random([8, shape[1]], seed: 2).polar()
        let values = (0..<8).map { $0 == 7 ? least : 1 - Double($0) / 10 }
        for (column, value) in values.enumerated() { left.scaleColumn(column, by: value) }
        let matrix = try left.view().times(right.view()), found = try matrix.copy().singularValues()
        #expect(zip(found.values, values).allSatisfy { ($0 - $1).magnitude < 1e-11 })
        expectIdentity(try found.left.transposed.times(found.left.view()), 1e-7)
        expectIdentity(try found.right.view().times(found.right.transposed), 1e-7)
        expectEqual(try found.rebuilt(with: found.values), matrix, 1e-11)
    }

    @Test(arguments: shapes)
    func polarIsTheNearestOrthonormalMatrix(shape: [Int]) throws {
        let found = try Self.random(shape).polar()
        expectIdentity(
            try shape[0] < shape[1] ? found.view().times(found.transposed) : found.transposed.times(found.view()))
    }

    @Test func productsOfPartsAndTransposes() throws {
        let a = try Self.random([6, 5]), b = try Self.random([6, 7], seed: 3)
        let found = try a.view(rows: 1..<4, columns: 2..<5).transposed.times(b.view(rows: 2..<5, columns: 1..<3))
        for row in 0..<3 {
            for column in 0..<2 {
                let expected = (0..<3).reduce(0) { $0 + a[1 + $1, 2 + row] * b[2 + $1, 1 + column] }
                #expect((found[row, column] - expected).magnitude < 1e-14)
            }
        }
        #expect(throws: TesseraError.self) { try a.view().times(b.view()) }
    }

    /// LAPACK may loop for ever over these.
    @Test(arguments: [Double.nan, .infinity, -.infinity])
    func valuesThatAreNotFiniteAreRefused(value: Double) throws {
        let matrix = try Self.random([6, 6])
        matrix[2, 3] = value
        let attempts: [(Matrix) throws -> Void] = [
            { _ = try $0.singularValues() }, { _ = try $0.eigenvalues() }, { _ = try $0.polar() },
            { _ = try $0.solve(into: Self.random([6, 6])) }, { try $0.solvePositiveDefinite(into: Self.random([6, 6])) },
        ]
        for attempt in attempts {
            let error = #expect(throws: TesseraError.self) { try attempt(matrix.copy()) }
            #expect(error?.code == .badData && error?.problem.contains("infinite or not a number") == true)
        }
    }

    @Test func aZeroMatrixHasNoDirections() throws {
        let zero = try Self.space().matrix(rows: 5, columns: 3)
        #expect(try zero.copy().singularValues().values == [0, 0, 0])
        #expect(try zero.polar().squaredNorm == 0)
        #expect(try Self.space().matrix(rows: 0, columns: 3).singularValues().values == [])
    }

    @Test func aSpaceHoldsNoMoreThanItHas() throws {
        let space = MatrixSpace(elements: 10), held = try space.matrix(rows: 2, columns: 4)
        #expect(throws: TesseraError.self) { try space.matrix(rows: 1, columns: 3) }
        #expect(throws: TesseraError.self) { try space.matrix(rows: .max, columns: 3) }
        withExtendedLifetime(held) {}
        _ = try space.matrix(rows: 1, columns: 2)
    }

    @Test func theLibraryComputesWithTheLoopsThatAllProcessorsHave() throws {
        #if arch(x86_64)
            #expect(try LinearAlgebra.identity().contains(" Haswell "))
        #else
            #expect(try LinearAlgebra.identity().lowercased().contains(" armv8 "))
        #endif
        #expect(try LinearAlgebra.identity().hasPrefix("OpenBLAS "))
    }

    /// The library is used by many threads at once.
    @Test func manyThreadsFindTheSame() throws {
        @Sendable func values(_ seed: UInt64) throws -> [Double] {
            try Self.random([60, 40], seed: seed).singularValues().values
        }
        let alone = try (0..<32).map { try values(UInt64($0)) }
        let together = Results(count: 32)
        try AtOnce().forEach(32) { together.set($0, try values(UInt64($0))) }
        #expect(together.values == alone)
    }
}

/// One result for each index.
private final class Results: Sendable {
    private let found: Mutex<[[Double]]>

    init(count: Int) { found = Mutex(Array(repeating: [], count: count)) }

    func set(_ index: Int, _ values: [Double]) { found.withLock { $0[index] = values } }

    var values: [[Double]] { found.withLock { $0 } }
}
