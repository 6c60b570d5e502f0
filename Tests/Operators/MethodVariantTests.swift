import Core
import Foundation
import LinearAlgebra
import TestSupport
import Testing

@testable import Operators

/// Methods that are combined: another merge of what one method makes, or the same merge of parts.
extension MatrixMethodTests {
    /// `a·b`, both row by row.
    private func product(_ a: [Double], _ b: [Double], inner: Int) -> [Double] {
        let rows = a.count / inner, columns = b.count / inner
        return (0..<rows * columns).map { place in
            (0..<inner).reduce(0.0) { $0 + a[place / columns * inner + $1] * b[$1 * columns + place % columns] }
        }
    }

    private func transposed(_ a: [Double], columns: Int) -> [Double] {
        let rows = a.count / columns
        return (0..<a.count).map { a[$0 % rows * columns + $0 / rows] }
    }

    private func singularValues(_ values: [Double], shape: [Int]) throws -> (left: Matrix, values: [Double], right: Matrix) {
        let matrix = try MatrixSpace(elements: 1 << 20).matrix(rows: shape[0], columns: shape[1])
        for (place, value) in values.enumerated() { matrix.elements[place] = value }
        let found = try matrix.singularValues()
        return (found.left, found.values, found.right)
    }

    // MARK: ACE

    /// ACE as its release computes it: every square of the columns is formed, and the system solved by elimination.
    private func ace(_ vectors: [[Float]], shape: [Int], epsilon: Double) throws -> (update: [Double], isOpen: Bool) {
        let (m, n, tasks) = (shape[0], shape[1], Double(vectors.count))
        let norms: [Double] = vectors.map { $0.reduce(0.0) { $0 + Double($1) * Double($1) } }
        let logarithms: [Double] = norms.map { log($0 + 1e-12) }, mean = logarithms.reduce(0, +) / tasks
        let squares: [Double] = logarithms.map { ($0 - mean) * ($0 - mean) }, variance = squares.reduce(0, +) / (tasks - 1)
        let isOpen = variance / (mean * mean + 1e-12) > 0.3
        var ridged = [Double](repeating: 0, count: n * n), grams = ridged
        var target = [Double](repeating: 0, count: m * n), products = target
        for vector in vectors {
            let whole = vector.map(Double.init)
            var centred = whole
            for column in 0..<n {
                let mean: Double = (0..<m).reduce(0.0) { $0 + whole[$1 * n + column] } / Double(m)
                for row in 0..<m { centred[row * n + column] -= mean }
            }
            var gram = product(transposed(centred, columns: n), centred, inner: m)
            let trace: Double = (0..<n).reduce(1e-12) { $0 + gram[$1 * n + $1] }, divisor = isOpen ? trace : 1
            gram = gram.map { $0 / divisor }
            for (place, value) in product(whole, gram, inner: n).enumerated() { products[place] += value }
            for place in 0..<n * n { grams[place] += gram[place] }
            for column in 0..<n { gram[column * n + column] += epsilon / divisor }
            for place in 0..<n * n { ridged[place] += gram[place] }
            for (place, value) in product(centred, gram, inner: n).enumerated() { target[place] += value }
        }
        var system = ridged
        for column in 0..<n {
            let mean: Double = (0..<n).reduce(0.0) { $0 + grams[$1 * n + column] } / Double(n)
            let divisor: Double = isOpen ? norms.reduce(0, +) / tasks + 1e-12 : 1
            for row in 0..<n { system[row * n + column] += mean / divisor }
        }
        var update = try solved(target, system, size: n)
        guard isOpen else { return (update, false) }
        let sum = Self.sum(vectors)
        for (place, value) in product(sum, ridged, inner: n).enumerated() { products[place] -= value / tasks }
        let found = try singularValues(zip(products, update).map { $0 + $1 }, shape: shape)
        let kept = Int(0.3 * Double(min(m, n))), value = found.values[..<kept].reduce(0, +) / Double(kept)
        for row in 0..<m {
            for column in 0..<n {
                for index in 0..<kept { update[row * n + column] += value * found.left[row, index] * found.right[index, column] }
            }
        }
        return (update, true)
    }

    /// `target · system⁻¹`, by elimination.
    private func solved(_ target: [Double], _ system: [Double], size: Int) throws -> [Double] {
        var a = transposed(system, columns: size), b = transposed(target, columns: size)
        let count = b.count / size
        for step in 0..<size {
            let pivot = try #require((step..<size).max { a[$0 * size + step].magnitude < a[$1 * size + step].magnitude })
            for column in 0..<size { a.swapAt(step * size + column, pivot * size + column) }
            for column in 0..<count { b.swapAt(step * count + column, pivot * count + column) }
            for row in 0..<size where row != step {
                let factor = a[row * size + step] / a[step * size + step]
                for column in step..<size { a[row * size + column] -= factor * a[step * size + column] }
                for column in 0..<count { b[row * count + column] -= factor * b[step * count + column] }
            }
        }
        for row in 0..<size {
            for column in 0..<count { b[row * count + column] /= a[row * size + row] }
        }
        return transposed(b, columns: count)
    }

    /// Wide matrices are merged by the second moments of their rows, others by those of their columns, with the same result.
    @Test(arguments: [[5, 40], [5, 14], [12, 9]], [[1, 1, 1], [0.1, 1, 40]] as [[Float]])
    func aceIsItsDefinition(shape: [Int], scales: [Float]) throws {
        let vectors = zip(Self.models(3, shape: shape), scales).map { vector, scale in vector.map { $0 * scale } }
        #expect((MatrixSize(shape, tasks: 3).gramOrder == 15) == (shape == [5, 40]))
        for epsilon in [0.01, 1] {
            let (expected, isOpen) = try ace(vectors, shape: shape, epsilon: epsilon)
            #expect(isOpen == (scales[0] < 1))
            expectEqual(try update("ace", vectors, shape: shape, ["epsilon": .number(epsilon)]), expected, "ace \(shape)")
        }
    }

    // MARK: KnOTS

    /// What is left of the aligned entries is scaled; without a chance to be dropped, all are.
    @Test func knotsDropsAlignedEntries() throws {
        var vectors = [[Float]](repeating: [Float](repeating: 0, count: 400), count: 2)
        for column in 0..<20 {
            vectors[0][column] = Float(column + 1)
            vectors[1][380 + column] = Float(70 - 3 * column)
        }
        let sum = zip(vectors[0], vectors[1]).map { Double($0 + $1) }
        let some: [String: ParameterValue] = ["density": .number(0.1), "lambda": .number(1)]
        func found(_ drop: Double) throws -> [Double] {
            let own: [String: ParameterValue] = ["rule": .text("dare_ties"), "drop": .number(drop)]
            return try update("knots", vectors, shape: [20, 20], some.merging(own) { $1 })
        }
        expectEqual(try found(0), try update("knots", vectors, shape: [20, 20], some), "nothing is dropped")
        let dropped = try found(0.5), kept = dropped.indices.filter { dropped[$0].magnitude > 1e-9 }
        // Of 40 aligned entries of each task, 5 stay, all of them twice what they were.
        #expect(kept.count == 10)
        for place in kept { #expect((dropped[place] / sum[place] - 2).magnitude < 1e-5, "\(place)") }
        #expect(kept.contains { sum[$0].magnitude < sum[$0 < 20 ? 15 : 384].magnitude }, "not the largest alone")
    }

    // MARK: MetaGPT

    /// The weights follow from what the other method keeps of each task vector.
    @Test(arguments: ["ties", "dare_linear", "dare_ties"])
    func metagptWeighsWhatAMethodKeeps(name: String) throws {
        let shape = [40, 25],
            vectors = zip(Self.models(3, shape: shape), [1, 3, 2]).map { vector, scale in
                vector.map { $0 * $0 * $0 * Float(scale) }
            }
        let sources = ([[Float](repeating: 0, count: 1000)] + vectors).map { TestTensor($0, shape: shape) }
        let bench = Bench(sources: sources, base: 0, randomKey: 9), inner = try #require(MergeMethods.named(name))
        func merged(_ weights: [Double]) throws -> [Double] {
            let own = weights.map { ["weight": ParameterValue.number($0), "density": .number(0.4)] }
            return try bench.run(inner, shared: ["normalize": .flag(false)], perInput: [[:]] + own).values
        }
        let kept = try (0..<3).map { task in try merged((0..<3).map { $0 == task ? 1 : 0 }) }
        let norms = kept.map { $0.reduce(0) { $0 + $1 * $1 } }, weights = norms.map { $0 / norms.reduce(0, +) }
        let density = Array(repeating: ["density": ParameterValue.number(0.4)], count: 3)
        let found = try bench.run(MetaGPT.self, shared: ["of": .text(name)], perInput: [[:]] + density).values
        expectEqual(found, try merged(weights), name)
        // The published density, of which less is left out.
        let standard = try bench.run(MetaGPT.self, shared: ["of": .text(name)]).values
        #expect(standard.count { $0 != 0 } > found.count { $0 != 0 } && standard.contains(0))
    }

    // MARK: SVC

    /// The directions are those of what `dare_linear` makes, whose half of the entries is dropped: `m'·mᵀ` is symmetric.
    @Test func svcCalibratesWhatIsLeftOfADrop() throws {
        let vectors = Self.models(3), shape = Self.shape
        func isSymmetric(with update: [Double], _ found: [Double]) -> Bool {
            let square = product(found, transposed(update, columns: shape[1]), inner: shape[1])
            let largest = square.reduce(0) { max($0, $1.magnitude) }
            return square.indices.allSatisfy {
                (square[$0] - square[$0 % shape[0] * shape[0] + $0 / shape[0]]).magnitude < 1e-5 * largest
            }
        }
        let found = try update("svc", vectors, ["of": .text("dare_linear")])
        let own = ["weight": ParameterValue.number(1), "density": .number(0.5)]
        let base = [Float](repeating: 0, count: 108)
        let dropped = try Bench(sources: ([base] + vectors).map { TestTensor($0, shape: shape) }, base: 0)
            .run(DareLinear.self, perInput: [[:], own, own, own]).values
        #expect(dropped.contains(0) && isSymmetric(with: dropped, found))
        #expect(!isSymmetric(with: Self.sum(vectors), found))
    }

    // MARK: Packed matrices

    /// Three matrices in one are boosted as each alone.
    @Test func packedMatricesAreBoostedEach() throws {
        let alone = [[4, 9], [12, 3]], names = ["packed_rows", "packed_columns"],
            beta: [String: ParameterValue] = ["beta": .number(0.4)]
        let vectors = Self.models(3)
        for (shape, name) in zip(alone, names) {
            func place(_ part: Int, _ index: Int) -> Int {
                name == "packed_rows" ? part * 36 + index : index / 3 * 9 + part * 3 + index % 3
            }
            var expected = [Double](repeating: 0, count: 108)
            for part in 0..<3 {
                let own = vectors.map { vector in (0..<36).map { vector[place(part, $0)] } }
                for (index, value) in try update("subspace_boosting", own, shape: shape, beta).enumerated() {
                    expected[place(part, index)] = value
                }
            }
            let found = try update("subspace_boosting", vectors, beta.merging([name: .flag(true)]) { $1 })
            expectEqual(found, expected, name)
            #expect(try update("subspace_boosting", vectors, beta) != found)
        }
        // So tall that a reduction would take the place of its rows.
        let tall = Self.models(2, shape: [600, 4]), third = tall.map { Array($0[..<800]) }
        let packed = beta.merging(["packed_rows": .flag(true)]) { $1 }
        expectEqual(
            Array(try update("subspace_boosting", tall, shape: [600, 4], packed)[..<800]),
            try update("subspace_boosting", third, shape: [200, 4], beta), "tall")
    }

    @Test func unequalPartsAreRefused() throws {
        var values = ParameterValues(perInput: [[:], [:]])
        for parameter in SubspaceBoosting.parameters { values.shared[parameter.name] = parameter.defaultValue }
        values.shared["packed_rows"] = .flag(true)
        let method = try SubspaceBoosting(values, inputs: TensorInputs(count: 2, base: 0))
        try method.check([12, 8])
        try method.check([8])
        let error = #expect(throws: TesseraError.self) { try method.check([8, 12]) }
        #expect(error?.problem.contains("'packed_rows' names a tensor of the shape [8, 12]") == true)
    }

    // MARK: Factors as the output

    @Test func factorsOfAPlanAreBounded() throws {
        let decoder = JSONDecoder(), shape = FactorShape(rank: 3, isTransposed: true)
        #expect(try shape.outputs(of: [5, 7], dtype: .f16).map(\.shape) == [[3, 5], [7, 3]])
        #expect(try decoder.decode(FactorShape.self, from: JSONEncoder().encode(shape)) == shape)
        for rank in ["0", "-1", "4294967296"] {
            let text = #"{"rank": \#(rank), "isTransposed": false}"#
            #expect(throws: (any Error).self) { try decoder.decode(FactorShape.self, from: Data(text.utf8)) }
        }
        for other in [[5], [2, 3, 4], [1 << 60, 1 << 60]] {
            #expect(throws: TesseraError.self) { try shape.outputs(of: other, dtype: .f32) }
        }
    }

    // MARK: DC-Merge of adapters

    /// One task, of which all entries stay: its leading directions. Singular values become more equal and add up as before.
    @Test func smoothingMakesSingularValuesMoreEqual() throws {
        let vector = Self.models(1), rank = 4
        let whole = try singularValues(vector[0].map(Double.init), shape: Self.shape).values
        func found(_ smoothing: String, rho: Double = 5) throws -> [Double] {
            let update = try update(
                "dc_merge", vector,
                ["rank": .number(Double(rank)), "density": .number(1), "smoothing": .text(smoothing), "rho": .number(rho)])
            return try singularValues(update, shape: Self.shape).values
        }
        let sum = whole[..<rank].reduce(0, +), plain = try found("none"), average = try found("average")
        for index in 0..<9 {
            #expect((plain[index] - (index < rank ? whole[index] : 0)).magnitude < 1e-5)
            #expect((average[index] - (index < rank ? sum / 4 : 0)).magnitude < 1e-5)
        }
        // 1.5 to 1 in equal steps, and no further apart than they are.
        let linear = try found("linear", rho: 1.5)
        for index in 0..<rank { #expect((linear[index] - sum * (1.5 - Double(index) / 6) / 5).magnitude < 1e-5) }
        let own = try found("linear")
        #expect((own[0] / own[rank - 1] - min(5, whole[0] / whole[rank - 1])).magnitude < 1e-4)
        #expect((own[..<rank].reduce(0, +) - sum).magnitude < 1e-4)
    }

    /// The share is of the cores, which are smaller than the matrix.
    @Test func theShareOfAnAdapterIsOfItsCore() throws {
        let vectors = Self.models(2), kept = 5.0,
            share = ["rank": ParameterValue.number(2), "density": .number((kept + 0.5) / 16)]
        let found = try update("dc_merge", vectors, share)
        #expect(found == (try update("dc_merge", vectors, ["rank": .number(2), "per_direction": .number((kept + 0.5) / 2)])))
        #expect(found != (try update("dc_merge", vectors, ["density": .number((kept + 0.5) / 16)])))
    }
}
