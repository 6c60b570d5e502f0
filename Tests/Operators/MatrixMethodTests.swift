import Core
import LinearAlgebra
import TestSupport
import Testing

@testable import Operators

/// What the theory of the methods on whole matrices says about their updates. Golden results are in `Tests/EndToEnd`.
@Suite struct MatrixMethodTests {
    static let methods = MergeMethods.all.filter { $0.usesLinearAlgebra && $0.inputs.base == .required }
    private static let names = methods.map { $0.name }

    static let shape = [12, 9]

    static func models(
        _ count: Int, shape: [Int] = shape, scale: Float = 1, seed: UInt64 = 1
    ) -> [[Float]] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in
            (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) * scale }
        }
    }

    static func sum(_ vectors: [[Float]]) -> [Double] {
        var sum = [Double](repeating: 0, count: vectors[0].count)
        for vector in vectors {
            for (index, value) in vector.enumerated() { sum[index] += Double(value) }
        }
        return sum
    }

    private func method(_ name: String) throws -> any MergeMethod.Type { try #require(MergeMethods.named(name)) }

    /// The update that a method makes of task vectors: the base is zero.
    func update(
        _ name: String, _ vectors: [[Float]], shape: [Int] = shape, _ shared: [String: ParameterValue] = [:]
    ) throws -> [Double] {
        let method = try method(name), hasBase = method.inputs.base == .required
        let base = [[Float](repeating: 0, count: shape.reduce(1, *))]
        return try Bench(
            sources: ((hasBase ? base : []) + vectors).map { TestTensor($0, shape: shape) }, base: hasBase ? 0 : nil
        ).run(method, shared: shared).values
    }

    func expectEqual(_ found: [Double], _ expected: [Double], _ what: String) {
        let largest = expected.reduce(0) { max($0, $1.magnitude) }
        let worst = zip(found, expected).reduce(0) { max($0, ($1.0 - $1.1).magnitude) }
        #expect(found.count == expected.count && worst <= 1e-5 * largest, "\(what): \(worst) of \(largest)")
    }

    @Test func thereAreMethods() { #expect(Self.methods.count >= 12) }

    /// One task at scale 1 and nothing left out: the task.
    @Test(
        arguments: [
            ("tsv", [:]), ("wudi", [:]), ("actmat", [:]), ("tact", ["density": .number(1)]), ("star", ["eta": .number(100)]),
            ("cart", [:]), ("dc_merge", ["density": .number(1)]),
            ("subspace_boosting", ["beta": .number(1), "lambda": .number(1)]),
            ("opcm", [:]), ("knots", ["density": .number(1), "lambda": .number(1)]),
            ("core_space", ["rule": .text("mean"), "rank": .number(40)]),
            ("core_space", ["rule": .text("ties"), "density": .number(1), "rank": .number(40)]), ("svc", ["lambda": .number(1)]),
            ("svc", ["of": .text("tsv")]), ("svc", ["of": .text("wudi")]), ("svc", ["of": .text("iso_c")]),
            ("larv", ["of": .text("tsv")]),
            ("core_space", ["rule": .text("tsv"), "rank": .number(40)]),
            ("core_space", ["rule": .text("cart"), "rank": .number(40)]),
            ("core_space", ["rule": .text("dare"), "drop": .number(0), "rank": .number(40)]),
            ("anchored_regression", ["lambda": .number(1)]), ("anchored_regression", ["of": .text("tsv")]),
        ] as [(String, [String: ParameterValue])])
    func oneTaskIsReturned(name: String, shared: [String: ParameterValue]) throws {
        for shape in [[12, 9], [9, 12], [7, 1], [1, 7], [40, 33]] {
            let vector = Self.models(1, shape: shape)[0]
            expectEqual(try update(name, [vector], shape: shape, shared), vector.map(Double.init), "\(name) \(shape)")
        }
        for (kind, shape, make) in Self.hostile {
            let vector = make(shape, 2)
            expectEqual(try update(name, [vector], shape: shape, shared), vector.map(Double.init), "\(name), \(kind)")
        }
    }

    @Test(arguments: names.filter { $0 != "opcm" && $0 != "core_space" })
    func theOrderOfModelsDoesNotMatter(name: String) throws {
        let vectors = Self.models(3), found = try update(name, vectors)
        expectEqual(try update(name, [vectors[2], vectors[0], vectors[1]]), found, name)
        #expect(found.contains { $0 != 0 })
    }

    /// Every method is homogeneous of degree 1, so that the unit of the weights does not matter, but for `ace`, whose epsilon is
    /// absolute, and `doge`, whose task vectors get a fixed norm.
    @Test(arguments: names.filter { $0 != "ace" && $0 != "doge" }, [Float(0x1p-100), 0x1p100])
    func updatesScaleWithTheTaskVectors(name: String, scale: Float) throws {
        let vectors = Self.models(3), scaled = vectors.map { $0.map { $0 * scale } }
        expectEqual(try update(name, scaled), try update(name, vectors).map { $0 * Double(scale) }, name)
    }

    /// A matrix and its transpose have the same singular vectors, with sides exchanged.
    @Test(arguments: ["tsv", "iso_c", "subspace_boosting", "star", "cart", "dc_merge"])
    func theSidesAreEqual(name: String) throws {
        func transposed<Value>(_ values: [Value], _ columns: Int) -> [Value] {
            let rows = values.count / columns
            return (0..<values.count).map { values[$0 % rows * columns + $0 / rows] }
        }
        let vectors = Self.models(3), found = try update(name, vectors)
        let other = try update(name, vectors.map { transposed($0, 9) }, shape: [9, 12])
        expectEqual(transposed(other, 12), found, name)
    }

    @Test func isotropicUpdatesAreOrthogonal() throws {
        for (name, shared) in [("iso_c", [:]), ("iso_cts", [:]), ("tsv", ["isotropic": .flag(true)])]
            as [(String, [String: ParameterValue])]
        {
            let found = try update(name, Self.models(3), shared)
            var products = [[Double]](repeating: [Double](repeating: 0, count: 9), count: 9)
            for row in 0..<12 {
                for i in 0..<9 {
                    for j in 0..<9 { products[i][j] += found[row * 9 + i] * found[row * 9 + j] }
                }
            }
            for i in 0..<9 {
                for j in 0..<9 where i != j {
                    #expect(products[i][j].magnitude < 1e-5 * products[0][0], "\(name)")
                }
                #expect((products[i][i] / products[0][0] - 1).magnitude < 1e-5, "\(name)")
            }
        }
    }

    /// Tasks with nothing in common do not disturb each other.
    @Test(arguments: ["tsv", "wudi", "actmat"])
    func disjointTasksAreAdded(name: String) throws {
        var vectors = [[Float]](repeating: [Float](repeating: 0, count: 100), count: 2)
        for index in 0..<5 {
            vectors[0][index * 10 + index] = Float(index + 1)
            vectors[1][(index + 5) * 10 + index + 5] = Float(index + 2)
        }
        let sum = zip(vectors[0], vectors[1]).map { Double($0 + $1) }
        expectEqual(try update(name, vectors, shape: [10, 10]), sum, name)
    }

    /// A task that did not move takes its share of the directions and changes nothing else; identical tasks agree.
    @Test func tasksWithoutDirectionsAddNone() throws {
        let vector = Self.models(1)[0], zero = vector.map { _ in Float(0) }
        let half = try update("tsv", [vector, zero])
        #expect(half.allSatisfy(\.isFinite) && half.contains { $0 != 0 })
        expectEqual(try update("tsv", [vector, vector]), half, "tsv of equal tasks")
        expectEqual(try update("actmat", [vector, vector]), vector.map(Double.init), "actmat of equal tasks")
    }

    /// `m(Q·τ₁ … Q·τ_T) = Q·m(τ₁ … τ_T)` where the columns of `Q` are orthonormal. The tall matrix is reduced, the small one not.
    @Test(arguments: methods.filter { isEquivariant($0) }.map { $0.name })
    func tallMatricesAreReduced(name: String) throws {
        let rows = 4000, small = 24, columns = 5
        #expect(TallMatrix(MatrixSize([rows, columns], tasks: 3)) != nil)
        #expect(TallMatrix(MatrixSize([small, columns], tasks: 3)) == nil)
        let rotation = Self.orthonormal(rows, small), vectors = Self.models(3, shape: [small, columns])
        func rotated(_ values: [Double]) -> [Double] {
            (0..<rows * columns).map { place in
                (0..<small).reduce(0) { $0 + rotation[$1][place / columns] * values[$1 * columns + place % columns] }
            }
        }
        // Of more directions than columns, no basis is better than another.
        let shared: [String: ParameterValue] = name == "core_space" ? ["rank": .number(1)] : [:]
        let tall = vectors.map { rotated($0.map(Double.init)).map(Float.init) }
        expectEqual(
            try update(name, tall, shape: [rows, columns], shared),
            rotated(try update(name, vectors, shape: [small, columns], shared)), name)
    }

    /// By default.
    private static func isEquivariant(_ method: any MergeMethod.Type) -> Bool {
        var values = ParameterValues(perInput: [[:], [:]])
        for parameter in method.parameters { values.shared[parameter.name] = parameter.defaultValue }
        return (try? method.init(values, inputs: TensorInputs(count: 2, base: 0)) as? any MatrixMethod)?.isEquivariant == true
    }

    /// Columns of a random matrix, made orthonormal one after the other.
    private static func orthonormal(_ rows: Int, _ columns: Int) -> [[Double]] {
        var found: [[Double]] = []
        for vector in models(columns, shape: [rows]) {
            var vector = vector.map(Double.init)
            for _ in 0..<2 {
                for other in found {
                    let product = zip(vector, other).reduce(0) { $0 + $1.0 * $1.1 }
                    for row in vector.indices { vector[row] -= product * other[row] }
                }
            }
            let norm = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
            found.append(vector.map { $0 / norm })
        }
        return found
    }

    /// `m(τ₁·Qᵀ … τ_T·Qᵀ) = m(τ₁ … τ_T)·Qᵀ` where the columns of `Q` are orthonormal. All task vectors together have fewer rows
    /// than the wide matrix has columns, and more than the narrow one.
    @Test(
        arguments: [
            ("wudi", [:]), ("wudi", ["spectral": .number(0.9), "steps": .number(3)]), ("actmat", [:]),
            ("anchored_regression", ["lambda": .number(0.4)]), ("anchored_regression", ["of": .text("wudi")]),
        ] as [(String, [String: ParameterValue])])
    func wideMatricesAreReduced(name: String, shared: [String: ParameterValue]) throws {
        let rows = 6, narrow = 15, wide = 70
        #expect(MatrixSize([rows, narrow], tasks: 3).gramOrder == narrow)
        #expect(MatrixSize([rows, wide], tasks: 3).gramOrder == 3 * rows)
        let rotation = Self.orthonormal(wide, narrow), vectors = Self.models(3, shape: [rows, narrow])
        func rotated(_ values: [Double]) -> [Double] {
            (0..<rows * wide).map { place in
                let row = place / wide * narrow, column = place % wide
                return (0..<narrow).reduce(0.0) { $0 + rotation[$1][column] * values[row + $1] }
            }
        }
        var own = shared
        // The share is of the columns, most of which have no eigenvalue here.
        if own["spectral"] != nil { own["spectral"] = .number(0.9 * Double(narrow) / Double(wide)) }
        // The ridge is relative to the mean of all eigenvalues.
        if name == "anchored_regression" { own["ridge"] = .number(0.3 * Double(wide) / Double(narrow)) }
        expectEqual(
            try update(name, vectors.map { rotated($0.map(Double.init)).map(Float.init) }, shape: [rows, wide], own),
            rotated(try update(name, vectors, shape: [rows, narrow], shared)), name)
    }

    /// `tact` looks at single entries, so that no rotation leaves it as it is: columns of zeros do.
    @Test(arguments: ["tact", "actmat", "wudi", "anchored_regression"])
    func columnsOfZerosChangeNothing(name: String) throws {
        let rows = 4, vectors = Self.models(3, shape: [rows, 11]), wide = 40
        func padded<Value: Numeric>(_ values: [Value]) -> [Value] {
            let zeros = [Value](repeating: 0, count: wide - 11)
            return (0..<rows).flatMap { row in Array(values[row * 11..<(row + 1) * 11]) + zeros }
        }
        // Both are relative to the number of columns.
        let more = Double(wide) / 11
        let shared: [String: ParameterValue] =
            switch name {
            case "tact": ["density": .number(0.5 / more)]
            case "anchored_regression": ["ridge": .number(0.3 * more)]
            default: [:]
            }
        let found = try update(name, vectors.map { padded($0) }, shape: [rows, wide], shared)
        let expected = try update(name, vectors, shape: [rows, 11])
        expectEqual(found, padded(expected), name)
    }

    /// A tall matrix of several chunks, which end within a row.
    @Test func rowsAcrossChunksAreWhole() throws {
        let shape = [700_001, 3], vector = Self.models(1, shape: shape)[0]
        expectEqual(try update("tsv", [vector], shape: shape), vector.map(Double.init), "tsv")
    }

    /// Tall matrices whose task vectors agree, did not move, or differ in size by far.
    @Test func tallMatricesMayLackDirections() throws {
        let shape = [600, 6], vector = Self.models(1, shape: shape)[0], zero = vector.map { _ in Float(0) }
        let half = try update("tsv", [vector, zero], shape: shape)
        expectEqual(try update("tsv", [vector, vector], shape: shape), half, "tsv of equal tasks")
        expectEqual(try update("actmat", [vector, zero], shape: shape), vector.map(Double.init), "actmat of one task")
        // Two tasks with nothing in common, of which one moved a billion times as far.
        let large = vector.enumerated().map { $0 < 1800 && $0 % 6 < 3 ? $1 : 0 }
        let little = vector.enumerated().map { $0 >= 1800 && $0 % 6 >= 3 ? $1 * 1e-9 : 0 }
        let found = try update("wudi", [little, large], shape: shape)
        expectEqual(found, large.map(Double.init), "the large one")
        expectEqual(Array(found[1800...]), little[1800...].map(Double.init), "the little one")
    }

    /// So many entries for each direction are a share of the square: each of three tasks has 3 directions of 9, of two 4.
    @Test(arguments: [(3, 3), (2, 4)])
    func entriesPerDirectionAreAShare(tasks: Int, directions: Int) throws {
        let vectors = Self.models(tasks), kept = 2.5 * Double(directions)
        let found = try update("dc_merge", vectors, ["per_direction": .number(2.5)])
        #expect(found == (try update("dc_merge", vectors, ["density": .number((kept.rounded(.down) + 0.5) / 81)])))
        #expect(found != (try update("dc_merge", vectors, ["per_direction": .number(0.1)])))
    }

    /// A strong anchor is the result, a weak one leaves `wudi`.
    @Test func theRidgeLeadsFromWUDIToTheAnchor() throws {
        let vectors = Self.models(3)
        func anchored(_ ridge: Double) throws -> [Double] {
            try update("anchored_regression", vectors, ["of": .text("tsv"), "ridge": .number(ridge)])
        }
        expectEqual(try anchored(1e-12), try update("wudi", vectors), "no ridge")
        let anchor = try update("tsv", vectors)
        let distances = try [0.01, 1, 100].map { ridge in
            zip(try anchored(ridge), anchor).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
        }
        #expect(distances[0] > distances[1] && distances[1] > distances[2])
        expectEqual(try anchored(1e6), anchor, "only the anchor")
    }

    // MARK: Which tensors

    /// `opcm` gives all of the model another norm.
    @Test(arguments: names.filter { $0 != "opcm" })
    func otherTensorsGetWhatTheRecipeSays(name: String) throws {
        let vectors = Self.models(3), sum = Self.sum(vectors)
        let isMatrix: [(String, [String: ParameterValue], Double)] = [
            ("mean_only", ["mean_only": .flag(true)], 0.5 / 3), ("base", ["exclude": .flag(true), "others": .text("base")], 0),
            ("mean", ["exclude": .flag(true), "others": .text("mean")], 0.5 / 3),
            ("sum", ["exclude": .flag(true), "others": .text("sum")], 0.5),
        ]
        for (what, shared, factor) in isMatrix {
            let found = try update(name, vectors, shared.merging(["lambda": .number(0.5)]) { own, _ in own })
            expectEqual(found, sum.map { factor * $0 }, "\(name), \(what)")
        }
        // A vector is no matrix.
        let bias = try update(name, vectors, shape: [108], ["others": .text("sum"), "lambda": .number(0.5)])
        expectEqual(bias, sum.map { 0.5 * $0 }, "\(name), vector")
        #expect(try update(name, vectors, ["others": .text("base")]).contains { $0 != 0 }, "a matrix is merged")
    }

    @Test func moreTasksThanDirectionsMakeAMean() throws {
        let vectors = Self.models(3, shape: [2, 5]), sum = Self.sum(vectors)
        for name in ["tsv", "iso_cts", "dc_merge"] {
            expectEqual(try update(name, vectors, shape: [2, 5]), sum.map { $0 / 3 }, name)
        }
    }

    // MARK: Hostile matrices

    private static let hostile: [(String, [Int], @Sendable ([Int], UInt64) -> [Float])] = [
        ("zero", [6, 5], { shape, _ in [Float](repeating: 0, count: shape.reduce(1, *)) }),
        ("rank one", [6, 5], { shape, seed in (0..<30).map { Float($0 / 5 + Int(seed)) * Float($0 % 5 - 2) } }),
        ("one row", [1, 50], { shape, seed in models(1, shape: shape, seed: seed)[0] }),
        ("one column", [50, 1], { shape, seed in models(1, shape: shape, seed: seed)[0] }),
        ("tiny", [6, 5], { shape, seed in models(1, shape: shape, scale: 1e-30, seed: seed)[0] }),
        ("huge", [6, 5], { shape, seed in models(1, shape: shape, scale: 1e30, seed: seed)[0] }),
        ("subnormal", [6, 5], { shape, seed in models(1, shape: shape, scale: 0x1p-140, seed: seed)[0] }),
        ("equal singular values", [6, 6], { _, seed in (0..<36).map { $0 % 7 == 0 ? Float(seed) : 0 } }),
        ("identical", [6, 5], { shape, _ in models(1, shape: shape)[0] }),
        ("one element", [1, 1], { _, seed in [Float(seed)] }),
    ]

    /// Every method that computes with matrices, those without a base too, by its defaults and with each word and flag that it
    /// knows: a method that is added later is tried as well.
    private static let variants: [(name: String, shared: [String: ParameterValue])] =
        MergeMethods.all.filter { $0.usesLinearAlgebra }.flatMap { method in
            let words = method.parameters.filter { !["others", "mean_only", "exclude", "include"].contains($0.name) }
            let own = words.flatMap { parameter -> [[String: ParameterValue]] in
                switch parameter.kind {
                case .choice(let choices):
                    choices.map { ParameterValue.text($0) }.filter { $0 != parameter.defaultValue }.map { [parameter.name: $0] }
                case .flag: [[parameter.name: .flag(parameter.defaultValue != .flag(true))]]
                default: []
                }
            }
            let fixed: [[String: ParameterValue]] = method.name == "wudi" ? [["spectral": .number(0.65)]] : []
            return ([[:]] + own + fixed).map { (method.name, $0) }
        }

    @Test func theHostileTableIsWhole() {
        #expect(Self.hostile.count == 10 && Set(Self.variants.map(\.name)).count == Self.methods.count + 1)
        #expect(Self.variants.contains { $0.name == "core_space" && $0.shared["rule"] == .text("dare_ties") })
        #expect(Self.variants.contains { $0.name == "svc" && $0.shared["of"] == .text("ties") })
    }

    @Test(arguments: hostile.map(\.0))
    func hostileMatricesHaveAnAnswer(kind: String) throws {
        let (_, shape, make) = try #require(Self.hostile.first { $0.0 == kind })
        for (name, shared) in Self.variants {
            for count in [1, 2, 3] {
                let vectors = (0..<count).map { make(shape, UInt64($0) + 1) }
                let found = try update(name, vectors, shape: shape, shared)
                let largest = vectors.joined().reduce(0) { max($0, Double($1.magnitude)) }
                // The norm of what `doge` adds is its own.
                let isFree = name == "doge" && largest > 0
                let bound = isFree ? Double.greatestFiniteMagnitude : largest * Double(1000 * count)
                #expect(found.allSatisfy { $0.isFinite && $0.magnitude <= bound }, "\(name) \(shared), \(count) tasks")
                #expect(try update(name, vectors, shape: shape, shared) == found, "\(name) \(shared)")
            }
        }
    }

    @Test(arguments: names, [Float.nan, .infinity, -.infinity])
    func valuesThatAreNotFiniteAreNamed(name: String, value: Float) throws {
        var vectors = Self.models(2)
        vectors[1][40] = value
        let error = #expect(throws: TesseraError.self) { try update(name, vectors) }
        #expect(error?.code == .badData)
        #expect(error?.problem.hasPrefix("the task vector of model 2 has values that are infinite or not a number") == true)
        // A tensor that is no matrix passes them on, as element-wise methods do, unless its norm is needed.
        if name == "opcm" {
            #expect(throws: TesseraError.self) { try update(name, vectors, shape: [108], ["others": .text("sum")]) }
            return
        }
        #expect(try update(name, vectors, shape: [108], ["others": .text("sum")]).contains { !$0.isFinite })
    }

    /// `regmean` has no task vectors.
    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func valuesOfModelsThatAreNotFiniteAreNamed(value: Float) throws {
        var models = Self.models(2)
        models[1][40] = value
        let error = #expect(throws: TesseraError.self) { try update("regmean", models) }
        #expect(error?.code == .badData)
        #expect(error?.problem.hasPrefix("the matrix of model 2 has values that are infinite or not a number") == true)
    }

    /// Sizes are judged without looking at data.
    @Test(arguments: names)
    func sizesAreBoundedInThePlan(name: String) throws {
        let method = try method(name)
        var values = ParameterValues(perInput: [[:], [:], [:]])
        for parameter in method.parameters { values.shared[parameter.name] = parameter.defaultValue }
        let bound = try method.init(values, inputs: TensorInputs(count: 3, base: 0))
        try bound.check([60_000, 4_096])
        try bound.check([30_000])
        guard !["actmat", "tact", "ace"].contains(name) else {
            // These leave matrices with a side of 20,000 to the mean.
            return #expect(bound.cost(of: [60_000, 4_096]) == OperatorCost(passes: 1))
        }
        // Two task vectors have 8192 columns together, and a matrix of that size holds their products.
        #expect(bound.cost(of: [60_000, 4_096]).memory.byteCount(threads: 1) > 8192 * 8192 * 8)
        for shape in [[30_000, 30_000], [1 << 24, 1 << 24], [4, 1 << 44], [1 << 44, 4]] {
            let error = #expect(throws: TesseraError.self, "\(shape)") { try bound.check(shape) }
            #expect(error?.advice?.contains("'mean_only'") == true)
        }
    }
}
