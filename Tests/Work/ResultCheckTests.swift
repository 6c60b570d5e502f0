import Core
import Operators
import Testing
import Work

@testable import TaskVectors

/// What a worker says about a tensor is checked before anything is planned from it or written into an index.
@Suite struct ResultCheckTests {
    private static let count = 64

    /// Two tasks on a base.
    private func tensor(_ operation: TensorOperation) -> TensorWork {
        TensorWork(
            name: "t", shape: [8, 8], operation: operation,
            sources: (0..<3).map { .stored(StoredReference(file: $0, offset: 0, dtype: .f32, shape: [8, 8])) }, outputs: [])
    }

    private func expect(
        _ operation: TensorOperation, takes good: [TensorStatistics?], refuses bad: [TensorStatistics?],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        let tensor = tensor(operation)
        for statistics in good { #expect(throws: Never.self, sourceLocation: location) { try tensor.check(statistics) } }
        for statistics in bad {
            let error = #expect(throws: TesseraError.self, "\(statistics as Any)", sourceLocation: location) {
                try tensor.check(statistics)
            }
            #expect(error?.code == .protocolMismatch && error?.tensor == "t", sourceLocation: location)
        }
    }

    private func expect(
        _ encoding: Encoding, takes good: [EncodingStatistics], refuses bad: [EncodingStatistics],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        try expect(
            .encode(encoding), takes: good.map { .encoding($0) },
            refuses: bad.map { .encoding($0) } + [nil, .merge(MergeStatistics([:]))], location)
    }

    private static func base() throws -> BaseIdentity {
        BaseIdentity(digest: try .sha256(of: []), sample: try .sha256(of: []))
    }

    @Test func storedVectors() throws {
        let base = try Self.base(), fine = VectorError(error: 1, energy: 2)
        func vectors(_ errors: VectorError...) -> EncodingStatistics { .vectors(base: base, errors) }
        let wrong = [
            vectors(), vectors(fine), vectors(fine, fine, fine), vectors(fine, VectorError(error: -1, energy: 2)),
            vectors(fine, VectorError(error: 1, energy: -1e-300)), .comparison(base: base, [true, true]), .kept([1, 1]),
        ]
        try expect(
            .quantize(Quantizer(tasks: [.zero, .zero])), takes: [vectors(fine, VectorError(error: 0, energy: 0))], refuses: wrong)
        try expect(
            .sparsify(SparseEncoder(selection: .largest([4, 4]), values: .raw(.f32), kept: [4, 4])), takes: [vectors(fine, fine)],
            refuses: wrong)
    }

    @Test func masksAndComparisons() throws {
        let base = try Self.base()
        func masks(_ changes: [Int: Double] = [:], tasks: Int = 2) -> EncodingStatistics {
            .masks(base: base, (0..<tasks).map { _ in MaskSums((0..<6).map { changes[$0] ?? 1 }[...]) })
        }
        // Only the product of a task vector and the shared one may be negative.
        try expect(
            .mask(TaskMasks(rule: .emr, shared: .raw(.f32), taskCount: 2)), takes: [masks(), masks([2: -1])],
            refuses: [masks(tasks: 1), masks([2: .infinity])] + [0, 1, 3, 4, 5].map { masks([$0: -1]) })
        try expect(
            .compare, takes: [.comparison(base: base, [true, false])],
            refuses: [.comparison(base: base, []), .comparison(base: base, [true, false, true])])
    }

    @Test func measurementsOfABudget() throws {
        let formats = [StorageFormat.zero, .mask]
        func grids(_ energy: Double = 1, _ errors: [[Double]] = [[1, 0]], tasks: Int = 2) -> EncodingStatistics {
            .grids(Array(repeating: GridErrors(energy: energy, errors: errors), count: tasks))
        }
        try expect(
            .measureGrids(GridMeasurement(shared: [.zero], formats: formats)), takes: [grids(), grids(0, [[0, 0]])],
            refuses: [
                grids(tasks: 0), grids(tasks: 3), grids(-1), grids(1, [[1, -1]]), grids(1, [[1]]), grids(1, []),
                grids(1, [[1, 0], [1, 0]]),
            ])
        // The last source is a shared vector that is there already.
        try expect(
            .measureGrids(GridMeasurement(shared: [.zero], sharedIsFrozen: true, formats: formats)), takes: [grids(tasks: 1)],
            refuses: [grids()])
    }

    @Test func countsOfEntries() throws {
        func counts(_ entries: [(UInt32, Int)]...) -> EncodingStatistics {
            .magnitudes(entries.map { MagnitudeCounts($0.map { MagnitudeCount(bin: $0.0, count: $0.1) }) })
        }
        try expect(
            .measureMagnitudes(.first(tasks: 2)), takes: [counts([(1, Self.count)], [])],
            refuses: [counts([]), counts([(1, 40), (2, 40)], []), counts([(1, -1)], [])])
        try expect(
            .measureMagnitudes(.second(bins: [7, nil])), takes: [counts([(1, 2)], [])], refuses: [counts([], [(1, 2)])])
        try expect(
            .countKept(SparseEncoder(selection: .random(density: 0.5, keys: [1, 2]), values: .raw(.f32), kept: [64, 64])),
            takes: [.kept([0, 64])], refuses: [.kept([1]), .kept([1, 65]), .kept([-1, 1])])
    }

    private func operation(_ method: String, _ shared: [String: ParameterValue] = [:]) -> MergeOperation {
        MergeOperation(
            method: method,
            values: ParameterValues(
                shared: shared, perInput: [[:]] + Array(repeating: ["weight": .number(1), "density": .number(0.5)], count: 2)),
            base: 0, codec: .rounding(to: .f32))
    }

    @Test func factorsReportAsMergesDo() throws {
        let factors = FactorShape(rank: 2, isTransposed: false)
        try expect(
            .factor(operation("lora_sum", ["lambda": .number(1)]), factors), takes: [nil, .merge(MergeStatistics([:]))],
            refuses: [.encoding(.kept([]))])
    }

    @Test func sumsOverModels() throws {
        func norms(_ numbers: Double...) -> TensorStatistics { .merge(MergeStatistics(["squared_norm": numbers])) }
        let merge = operation("metagpt", ["of": .text("task_arithmetic")])
        try expect(
            .measure(merge, ModelStage(round: 0)), takes: [norms(0, 1, 2)],
            refuses: [
                nil, norms(), norms(1, 2), norms(0, 1, -1), norms(0, 1, .infinity), .merge(MergeStatistics([:])),
                .encoding(.kept([])),
            ]
        )
        // What a merge reports is not planned from.
        try expect(.merge(merge), takes: [nil, norms(-1)], refuses: [.encoding(.kept([]))])
    }

    @Test func magnitudesOfModels() throws {
        func counts(_ found: [[(UInt32, Int)]]) -> TensorStatistics {
            .merge(
                MergeStatistics(
                    [:], counts: ["threshold": found.map { MagnitudeCounts($0.map { MagnitudeCount(bin: $0.0, count: $0.1) }) }]))
        }
        let merge = operation(
            "ties", ["normalize": .flag(true), "lambda": .number(1), "trim": .text("model"), "rescale": .flag(false)])
        let stage = ModelStage(round: 0, width: 8, prefixes: ["threshold": [nil, 0, 0]])
        try expect(
            .measure(merge, stage), takes: [counts([[], [(3, 64)], [(255, 1)]])],
            refuses: [
                nil, counts([]), counts([[], [(3, 64)]]), counts([[], [(3, 65)], []]), counts([[], [(256, 1)], []]),
                counts([[(1, 1)], [], []]), .merge(MergeStatistics(["threshold": [1, 2, 3]])),
            ])
    }
}
