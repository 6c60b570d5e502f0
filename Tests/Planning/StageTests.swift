import Checkpoints
import Core
import Operators
import Planning
import TaskVectors
import TestSupport
import Testing
import Work

/// A plan is a function of the request and of the statistics of earlier stages.
@Suite struct StageTests {
    private let family = MemoryFamily()
    private static let budget = MemoryFamily.store("quantize: {budget: 8 bits}")
    private static let modelWide = MemoryFamily.store("sparsify: {method: magnitude, density: 0.5, scope: model}")

    /// Energies, and errors that fall with the bits of the formats.
    private func measured(_ plan: Plan) -> [ExactText: TensorStatistics] {
        plan.statistics { tensor, task in
            guard case .encode(.measureGrids(let measurement)) = tensor.operation else { return [] }
            let errors = measurement.formats.map { 1 / Double(1 + task + $0.byteCount(shape: tensor.shape)) }
            return [2] + measurement.shared.flatMap { _ in errors }
        }
    }

    private func identity() throws -> BaseIdentity {
        BaseIdentity(digest: try .sha256(of: [1]), sample: try .sha256(of: [2]))
    }

    @Test func aBudgetIsPlannedInTwoStages() throws {
        let request = family.request(Self.budget)
        let first = try Planner.plan(request)
        #expect(first.hasMoreStages && first.layout.parts.isEmpty && first.derived.isEmpty)
        let statistics = measured(first)
        let second = try Planner.plan(request, after: [statistics])
        #expect(!second.hasMoreStages && !second.layout.parts.isEmpty)
        #expect(second.inputs == first.inputs)
        #expect(second.digest != first.digest)
        #expect(try Planner.plan(request, after: [statistics]).digest == second.digest)
        #expect(try Planner.plan(request).digest == first.digest)
    }

    /// The index is a value of the plan: its bytes are made of the statistics that came in, whenever that is.
    @Test func theIndexIsMadeOfStatistics() throws {
        let request = family.request(MemoryFamily.store("quantize: {bits: 4, group: 64}"))
        let plan = try Planner.plan(request), file = try #require(plan.derived.first)
        #expect(plan.derived.count == 1 && file.name == StoreIndex.fileName && !plan.hasMoreStages)
        let statistics = plan.statistics(base: try identity()) { _, task in [Double(task), 4] }
        let bytes = try file.contents(statistics)
        #expect(try file.contents(statistics) == bytes)
        #expect(String(decoding: bytes, as: UTF8.self).contains("\"energy\":16"))
        #expect(#expect(throws: TesseraError.self) { try file.contents([:]) }?.code == .internal)
    }

    /// Of the 28 elements of all encoded tensors, 14 are kept by one threshold.
    @Test func aShareOfTheModelIsPlannedInThree() throws {
        let request = family.request(Self.modelWide)
        let first = try Planner.plan(request)
        let coarse = first.statistics { tensor, _ in [5, Double(tensor.elementCount)] }
        let second = try Planner.plan(request, after: [coarse])
        #expect(first.hasMoreStages && second.hasMoreStages)
        let fine = second.statistics { tensor, _ in [8, 1, 7, Double(tensor.elementCount - 1)] }
        let third = try Planner.plan(request, after: [coarse, fine])
        #expect(!third.hasMoreStages)
        let kept = third.tensors.map { tensor -> [Int] in
            guard case .encode(.sparsify(let encoder)) = tensor.operation else { return [] }
            return encoder.kept
        }
        let elements = third.tensors.reduce(0) { $0 + $1.elementCount }
        #expect(kept.reduce(0) { $0 + ($1.first ?? 0) } == elements / 2)
        #expect(kept.allSatisfy { $0.count == 2 && $0[0] == $0[1] && $0[0] >= 1 })
    }

    /// What a worker counts is bounded before it is added up.
    @Test(arguments: [[5, 9e18], [5, 7], [5, -1]])
    func impossibleCountsAreRefused(numbers: [Double]) throws {
        let request = family.request(Self.modelWide)
        let statistics = try Planner.plan(request).statistics { tensor, _ in
            tensor.name == "model.norm.weight" ? numbers : [5, 1]
        }
        let error = #expect(throws: TesseraError.self) { try Planner.plan(request, after: [statistics]) }
        #expect(error?.code == .internal && error?.tensor == "model.norm.weight")
        #expect(#expect(throws: TesseraError.self) { try Planner.plan(request, after: [[:]]) }?.code == .internal)
    }

    private static let metagpt = "merge_method: metagpt\nbase_model: base\nmodels:\n- model: a\n- model: b\n"

    /// The models' own sums over all tensors travel in the values of each.
    @Test func sumsOverTheModelsArePlannedInTwoStages() throws {
        let request = family.request(Self.metagpt), first = try Planner.plan(request)
        #expect(first.hasMoreStages && first.layout.parts.isEmpty && first.sidecars.isEmpty)
        #expect(first.tensors.allSatisfy { $0.operation == .measure(MergeMeasurement(method: "metagpt", base: 2)) })
        let statistics = Dictionary(
            uniqueKeysWithValues: first.tensors.map { tensor in
                (
                    ExactText(tensor.name),
                    TensorStatistics.merge(MergeStatistics(["squared_norm": [1, Double(tensor.shape[0]), 0]]))
                )
            })
        let second = try Planner.plan(request, after: [statistics])
        #expect(!second.hasMoreStages && !second.layout.parts.isEmpty && second.digest != first.digest)
        #expect(try Planner.plan(request, after: [statistics]).digest == second.digest)
        let rows = first.tensors.reduce(0) { $0 + $1.shape[0] }
        let expected: [ParameterValue] = [.number(Double(first.tensors.count)), .number(Double(rows)), .number(0)]
        #expect(second.tensors.count == first.tensors.count)
        for tensor in second.tensors { #expect(tensor.values.perInput.map { $0["squared_norm"] } == expected) }
        var another = statistics
        another[ExactText("model.norm.weight")] = .merge(MergeStatistics(["squared_norm": [2, 2, 0]]))
        #expect(try Planner.plan(request, after: [another]).digest != second.digest)
    }

    @Test(arguments: [[-1, 0, 0], [.nan, 0, 0], [.infinity, 0, 0], [1, 1], []])
    func impossibleSumsAreRefused(numbers: [Double]) throws {
        let request = family.request(Self.metagpt)
        var statistics: [ExactText: TensorStatistics] = [:]
        for tensor in try Planner.plan(request).tensors {
            let found = tensor.name == "model.norm.weight" ? numbers : [1, 1, 0]
            statistics[ExactText(tensor.name)] = .merge(MergeStatistics(["squared_norm": found]))
        }
        for wrong in [statistics, statistics.filter { $0.key != ExactText("model.norm.weight") }] {
            let error = #expect(throws: TesseraError.self) { try Planner.plan(request, after: [wrong]) }
            #expect(error?.code == .internal && error?.tensor == "model.norm.weight")
        }
    }

    /// The same bytes in another file are another input, as everywhere.
    @Test(arguments: ["base", "b"])
    func inputsThatChangeBetweenStagesAreRefused(model: String) throws {
        var request = family.request(Self.budget)
        let first = try Planner.plan(request), statistics = measured(first)
        request.pinnedInputs = first.inputs
        #expect(throws: Never.self) { try Planner.plan(request, after: [statistics]) }
        let path = "/models/\(model)/model.safetensors"
        family.files.write(try family.files.read(path, maxBytes: 1 << 20), to: path)
        let error = #expect(throws: TesseraError.self) { try Planner.plan(request, after: [statistics]) }
        #expect(error?.code == .badData && error?.file.map { "/\($0)" } == path)
        #expect(error?.problem == "the file was changed or replaced after the job was planned")
    }
}
