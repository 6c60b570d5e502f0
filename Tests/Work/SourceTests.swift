import Core
import Foundation
import LinearAlgebra
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing
import Work

/// Sources made of other sources: what is opened, asked for ahead, and released.
@Suite struct SourceTests {
    /// Tiles end inside rows.
    private static let shape = [2, 20_000]

    enum Kind: CaseIterable {
        case stored, lowRank, experts, rescaledRows, rescaledColumns, denseGroups, denseRows, wholeGrid, sparse, sparseGroups,
            masked, aligned, alignedLowRank,
            trainedRows, residual, transposed
    }

    private static let grid = Grid(bits: 3, granularity: .group(128))

    /// The base, and a source of this kind.
    private static func sources(_ kind: Kind, in bench: inout SourceBench, shape: [Int] = shape) throws -> [SourceReference] {
        let base = bench.add(shape), kept = shape.reduce(1, *) / 2
        func packed(_ own: StorageFormat, shared: StorageFormat? = nil) throws -> [SourceReference] {
            let own = bench.add(own, shape: shape), shared = shared.map { bench.add($0, shape: shape) }
            return [.stored(base), try bench.packed(base, own: own, shared: shared)]
        }
        func lowRank(_ matrix: SourceReference) -> SourceReference {
            .lowRank(
                matrix,
                LowRankReference(
                    a: bench.add([2, shape[1]]), b: bench.add([shape[0], 2]), rank: 2, scale: 0.5, isTransposed: false))
        }
        func rescaled(_ axis: RescaledMatrix.Axis) -> SourceReference {
            .rescaled(
                lowRank(.stored(bench.add(shape, seed: 2))),
                MagnitudeReference(bench.add([axis == .rows ? shape[0] : shape[1]]), axis: axis))
        }
        func aligned(_ matrices: [SourceReference]) -> [SourceReference] {
            // Between them the maps name every row.
            let row = { RowMap.SourceRow(source: $0, row: $1) }
            let origins: [[RowMap.Origin]] = [
                [.stored(row(0, 1)), .mean([row(0, 0), row(1, 1)])], [.stored(row(1, 0)), .padding],
            ]
            return origins.map { origins in
                var map = RowMap()
                for origin in origins { map.append(origin) }
                return .aligned(matrices, AlignmentReference(rowLength: shape[1], map: map))
            }
        }
        switch kind {
        case .stored: return [.stored(base), .stored(bench.add(shape, seed: 2))]
        case .lowRank: return [.stored(base), lowRank(.stored(bench.add(shape, seed: 2)))]
        case .experts:
            let update = LowRankReference(
                a: bench.add([6, shape[1]]), b: bench.add([shape[0] + 1, 6]), rank: 2, scale: 0.5, isTransposed: false,
                experts: ExpertFactors(count: 3, expert: 1, firstRow: 1))
            return [.stored(base), .lowRank(.stored(bench.add(shape, seed: 2)), update)]
        case .rescaledRows: return [.stored(base), rescaled(.rows)]
        case .rescaledColumns: return [.stored(base), rescaled(.columns)]
        case .residual:
            let residual = ResidualReference(
                part: .leadingColumns, rank: 1, scale: 1, linearAlgebra: try LinearAlgebra.identity())
            return [.stored(base), .residual(.stored(bench.add(shape, seed: 2)), residual)]
        case .transposed:
            let transpose = TransposeReference(shape: shape)
            return [.stored(base), .transposed(.stored(bench.add([shape[1], shape[0]], seed: 2)), transpose)]
        case .denseGroups: return try packed(.dense(.grid(grid)))
        case .denseRows: return try packed(.dense(.grid(Grid(bits: 4, granularity: .row))), shared: .dense(.grid(grid)))
        case .wholeGrid: return try packed(.dense(.grid(Grid(bits: 2, granularity: .tensor))))
        case .sparse: return try packed(.sparse(kept: kept, .raw(.bf16)))
        case .sparseGroups: return try packed(.sparse(kept: kept, .grid(grid)))
        case .masked: return try packed(.mask, shared: .dense(.raw(.bf16)))
        case .aligned: return aligned([.stored(base), .stored(bench.add(shape, seed: 2))])
        case .alignedLowRank: return aligned([.stored(base), lowRank(.stored(bench.add(shape, seed: 2)))])
        case .trainedRows:
            // Rows of an adapter's tensor, in the order of another vocabulary.
            var map = RowMap()
            map.append(.stored(RowMap.SourceRow(source: 0, row: 0)))
            map.append(.mean([RowMap.SourceRow(source: 0, row: 1), RowMap.SourceRow(source: 1, row: 0)]))
            let matrices = [lowRank(.stored(bench.add(shape, seed: 2))), .stored(bench.add([1, shape[1]], seed: 3))]
            return aligned([.stored(base), .aligned(matrices, AlignmentReference(rowLength: shape[1], map: map))])
        }
    }

    /// The bytes of all sources, and no byte of a neighbour, are asked for ahead; none stays mapped.
    @Test(arguments: Kind.allCases, [("linear", nil), ("ties", 0)] as [(String, Int?)])
    func inputsArePrefetchedAndReleased(kind: Kind, method: (name: String, base: Int?)) throws {
        try expectReleased(kind, method.name, base: method.base)
    }

    /// Two blocks of output, the second a short one.
    @Test(arguments: [Kind.sparseGroups, .aligned])
    func largeInputsToo(kind: Kind) throws { try expectReleased(kind, "linear", base: nil, shape: [2, 1_100_000]) }

    private func expectReleased(_ kind: Kind, _ method: String, base: Int?, shape: [Int] = shape) throws {
        var bench = SourceBench()
        let sources = try Self.sources(kind, in: &bench, shape: shape)
        let notes = try bench.merge(sources, shape: shape, by: method, base: base).notes
        #expect(notes.mapped.isEmpty)
        #expect(notes.released == bench.ranges)
        // The scale and zero point of a whole tensor are read when it is opened.
        if kind != .wholeGrid { #expect(notes.prefetched == bench.ranges) }
        #expect(notes.prefetched.isSubset(of: bench.ranges))
    }

    /// What a method is given beside its sources, tile by tile or as a matrix, is treated as they are.
    @Test(arguments: ["fisher", "regmean"], [true, false])
    func givenTensorsArePrefetchedAndReleased(method: String, isDirect: Bool) throws {
        var bench = SourceBench()
        let shape = [200, 70], isSquare = method == "regmean"
        let identity = TestTensor((0..<70 * 70).map { $0 % 71 == 0 ? 1 : 0 }, shape: [70, 70])
        let sources = [bench.add(shape), bench.add(shape, seed: 2)].map { SourceReference.stored($0) }
        let given = [0, 1].map { input in
            GivenReference(
                .init(parameter: isSquare ? "gram" : "fisher", input: input, file: "file"),
                isSquare ? bench.add(identity) : bench.add(shape, seed: 3 + input))
        }
        let notes = try bench.merge(sources, given: given, shape: shape, by: method, isDirect: isDirect).notes
        #expect(notes.mapped.isEmpty && notes.released == bench.ranges && notes.prefetched == bench.ranges)
    }

    /// A file that is read piece by piece gives the bytes of one that is mapped.
    @Test(arguments: Kind.allCases)
    func anyFileGivesTheSameBytes(kind: Kind) throws {
        var bench = SourceBench()
        let shape = [2, 5_000], sources = try Self.sources(kind, in: &bench, shape: shape)
        let mapped = try bench.merge(sources, shape: shape).output
        #expect(try bench.merge(sources, shape: shape, isDirect: false).output == mapped)
    }

    /// Two models share the adapted matrix: its factors are read once.
    @Test func equalReferencesAreOpenedOnce() throws {
        var bench = SourceBench()
        let shape = [2, 5_000], sources = try Self.sources(.alignedLowRank, in: &bench, shape: shape)
        guard case .aligned(let matrices, _) = sources[0], case .lowRank(_, let update) = matrices[1] else {
            throw TesseraError(.internal, "not what was asked for")
        }
        let reads = try bench.merge(sources, shape: shape).notes.reads
        #expect(reads.count { $0.lowerBound == update.a?.offset } == 1)
    }

    /// Kinds nest: a task vector on a matrix with an adapter, aligned.
    @Test func kindsNest() throws {
        var bench = SourceBench()
        let shape = [2, 3]
        let matrix = bench.add(TestTensor([0, 0, 0, 0, 0, 0], shape: shape))
        let update = LowRankReference(
            a: bench.add(TestTensor([1, 2, 3], shape: [1, 3])), b: bench.add(TestTensor([1, 10], shape: [2, 1])), rank: 1,
            scale: 2, isTransposed: false)
        let adapted = SourceReference.lowRank(.stored(matrix), update)
        let again = SourceReference.lowRank(adapted, update)
        var map = RowMap()
        map.append(.stored(RowMap.SourceRow(source: 0, row: 1)))
        map.append(.stored(RowMap.SourceRow(source: 1, row: 0)))
        let aligned = SourceReference.aligned([adapted, again], AlignmentReference(rowLength: 3, map: map))
        let output = try bench.merge([aligned], shape: shape).output
        #expect(TestTensor(.f32, shape, bytes: output).values == [20, 40, 60, 4, 8, 12])
    }

    @Test func sourcesOfAnotherSizeAreRefused() throws {
        var bench = SourceBench()
        let stored = bench.add([3])
        let error = #expect(throws: TesseraError.self) { try bench.merge([.stored(stored)], shape: [4]) }
        #expect(error?.code == .badData)
    }

    /// OpenBLAS of another version computes other bits, on whatever host it is.
    @Test func anotherLibraryIsRefused() throws {
        var bench = SourceBench()
        let residual = ResidualReference(part: .principal, rank: 1, scale: 1, linearAlgebra: "OpenBLAS 0.0")
        let source = SourceReference.residual(.stored(bench.add([2, 3])), residual)
        let error = #expect(throws: TesseraError.self) { try bench.merge([source], shape: [2, 3]) }
        #expect(error?.code == .temporary && error?.problem.contains("OpenBLAS 0.0") == true)
    }

    // MARK: The wire

    @Test func filesAreRenumberedEverywhere() throws {
        var bench = SourceBench()
        for kind in Kind.allCases {
            for var source in try Self.sources(kind, in: &bench, shape: [2, 64]) {
                source.renumberFiles { $0 + 7 }
                let json = String(decoding: try JSONEncoder().encode(source), as: UTF8.self)
                #expect(json.contains(#""file":7"#) && !json.contains(#""file":0"#))
            }
        }
    }

    private static let stored = #"{"stored":{"_0":{"file":0,"offset":0,"dtype":"F32","shape":[4]}}}"#

    /// What a peer says is bounded before anything is multiplied.
    @Test(arguments: [
        #"{"stored":{"_0":{"file":0,"offset":0,"dtype":"F32","shape":[4611686018427387904,4]}}}"#,
        #"{"stored":{"_0":{"file":0,"offset":0,"dtype":"F32","shape":[-1]}}}"#,
        #"{"stored":{"_0":{"file":0,"offset":0,"dtype":"F32","shape":[281474976710657]}}}"#,
        #"{"aligned":{"_0":[],"_1":{"rowLength":9223372036854775807,"map":""}}}"#,
        #"{"aligned":{"_0":[],"_1":{"rowLength":0,"map":""}}}"#,
        #"{"residual":{"_0":\#(stored),"_1":{"part":"principal","rank":0,"scale":1,"linearAlgebra":""}}}"#,
        #"{"transposed":{"_0":\#(stored),"_1":{"shape":[4611686018427387904,4]}}}"#,
    ])
    func numbersOutOfBoundsAreRefused(json: String) {
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(SourceReference.self, from: Data(json.utf8)) }
    }

    @Test(arguments: [
        #""byteCount":-1,"part":0,"offset":0,"blockSize":1"#, #""byteCount":1,"part":0,"offset":0,"blockSize":0"#,
        #""byteCount":1,"part":-1,"offset":0,"blockSize":1"#,
        #""byteCount":1,"part":0,"offset":9223372036854775807,"blockSize":1"#,
        #""byteCount":9223372036854775807,"part":0,"offset":0,"blockSize":1"#,
    ])
    func outputsOutOfBoundsAreRefused(numbers: String) {
        let json = #"{"name":"t","dtype":"F32",\#(numbers)}"#
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(OutputTensor.self, from: Data(json.utf8)) }
    }

    @Test func shapesOutOfBoundsAreRefused() {
        let json =
            #"{"name":"t","shape":[4294967296,4294967296],"operation":{"encode":{"_0":{"compare":{}}}},"#
            + #""sources":[],"outputs":[]}"#
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(TensorWork.self, from: Data(json.utf8)) }
        let format = #"{"form":"sparse","kept":9223372036854775807,"bits":8,"group":16}"#
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(StorageFormat.self, from: Data(format.utf8)) }
    }
}
