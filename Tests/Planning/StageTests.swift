import Checkpoints
import Core
import Foundation
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

    /// What a budget minimises, of two tensors of 2¹⁸ elements and two tasks: the first task leaves the second tensor alone. The
    /// elements that changed are what a tensor counts, and what noise is compared with.
    private func thinned(changed: Double) throws -> (bytes: [Int], losses: [Double], expected: [Double]) {
        let family = MemoryFamily(), energies = [[3.0, 1], [0, 1]], base = 40.0
        for (value, model) in ["base", "a", "b"].enumerated() {
            let tensor = TestTensor([Float](repeating: Float(value), count: 1 << 18), shape: [512, 512])
            family.write(model, [("embed.weight", tensor), ("mlp.weight", tensor)])
        }
        let request = family.request(MemoryFamily.store("quantize: {budget: 0.6 bits}")), first = try Planner.plan(request)
        func lost(_ bits: Int) -> Double { [0.36, 0.12, 0.034, 0.009, 0.0025][bits - 1] }
        let statistics = first.tensors.enumerated().map { number, tensor in
            let grids = energies[number].map { energy in
                GridErrors(
                    energy: energy, base: base, changed: number == 0 ? changed : Double(tensor.elementCount),
                    errors: [(1...5).map { energy * lost($0) }])
            }
            return (ExactText(tensor.name), TensorStatistics.encoding(.grids(grids)))
        }
        let plan = try Planner.plan(request, after: [Dictionary(uniqueKeysWithValues: statistics)])
        var bytes: [Int] = [], expected: [Double] = []
        for (tensor, energies) in zip(plan.tensors, energies) {
            guard case .encode(.quantize(let quantizer)) = tensor.operation else { continue }
            bytes.append(quantizer.tasks.reduce(0) { $0 + $1.byteCount(shape: tensor.shape) })
            let losses = zip(quantizer.tasks, zip(energies, [3.0, 2])).compactMap { format, energies -> Double? in
                guard case .thinned(let grid) = format, energies.0 > 0 else { return nil }
                let variance = (1 + lost(grid.bits)) * Double(grid.every - 1)
                return lost(grid.bits) + energies.1 / (2 * base) * variance
            }
            expected.append(losses.reduce(0, +) / Double(losses.count))
        }
        let index = try #require(plan.derived.first { $0.name == StoreIndex.fileName })
        let text = try index.contents(plan.statistics(base: try identity()) { tensor, task in [1, 1] })
        let json = try #require(try JSONSerialization.jsonObject(with: Data(text)) as? [String: Any])
        let told = try #require(json["tensors"] as? [[String: Any]]).compactMap { $0["measured"] as? [Double] }
        return (bytes, told.compactMap(\.last), expected)
    }

    @Test func elementsThatDidNotChangeCountForNothing() throws {
        let all = try thinned(changed: 0x1p18), few = try thinned(changed: 0x1p16)
        for found in [all, few] {
            #expect(found.losses.count == 2 && found.expected.count == 2)
            for (loss, expected) in zip(found.losses, found.expected) { #expect((loss / expected - 1).magnitude < 0.01) }
        }
        #expect(few.bytes[0] < all.bytes[0] && few.bytes[1] > all.bytes[1], "\(few.bytes) in place of \(all.bytes)")
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
        for tensor in first.tensors {
            guard case .measure(let merge, let stage) = tensor.operation else {
                Issue.record("\(tensor.name) is not measured")
                continue
            }
            #expect(merge.method == "metagpt" && merge.base == 2 && stage == ModelStage(round: 0))
        }
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

    /// Whatever planning reads: weights, configs, adapters, an index, sensitivities. The same bytes in another file are another
    /// input, as everywhere.
    @Test(arguments: [
        "base/model.safetensors", "b/model.safetensors", "b/config.json", "lora/adapter_model.safetensors",
        "lora/adapter_config.json", "store/task-vectors.json", "store/x.safetensors", "weights.yml",
    ])
    func inputsThatChangeBetweenStagesAreRefused(file: String) throws {
        family.writeAdapter("lora")
        family.write("mlp: 2.5\n", to: "weights.yml")
        try writeStore()
        for model in ["a+lora", "store#x"] {
            var request = family.request(
                "quantize: {budget: 8 bits, sensitivity: weights.yml}\nbase_model: base\nmodels:\n- model: \(model)\n- model: b\n"
            )
            let first = try Planner.plan(request), statistics = measured(first), path = "/models/\(file)"
            request.pinnedFiles = first.pinnedFiles
            #expect(throws: Never.self) { try Planner.plan(request, after: [statistics]) }
            guard first.pinnedFiles[path] != nil else { continue }
            let bytes = try family.files.read(path, maxBytes: 1 << 20)
            family.files.write(bytes, to: path)
            expectChange(of: path, request, [statistics])
            // Not even where the plan fails for it.
            family.files.write([], to: path)
            expectChange(of: path, request, [statistics])
            family.files.remove(path)
            #expect(throws: (any Error).self) { try Planner.plan(request, after: [statistics]) }
            return
        }
        Issue.record("nothing reads \(file)")
    }

    private func expectChange(of path: String, _ request: PlanRequest, _ statistics: [[ExactText: TensorStatistics]]) {
        let error = #expect(throws: TesseraError.self) { try Planner.plan(request, after: statistics) }
        #expect(error?.code == .badData && error?.file == path)
        #expect(error?.problem == "the file was changed or replaced after the job was planned")
    }

    /// A task that is the base itself.
    private func writeStore() throws {
        let identity = try identity(), tensors = MemoryFamily.tensors(0)
        let index = StoreIndex(
            base: .init(model: "base", parts: [], digest: identity.digest),
            tensors: tensors.map { .init(name: $0.0, dtype: $0.1.dtype, shape: $0.1.shape, base: identity) }, shared: nil,
            tasks: [
                .init(
                    name: "x", model: "a", parts: [], scheme: "tvq", files: ["x.safetensors"],
                    formats: tensors.map { _ in .zero }, factor: 1, error: 0, energy: 1, predicted: nil, lost: [])
            ])
        family.files.write(try index.encoded(), to: "/models/store/task-vectors.json")
        family.files.write(TestTensor.encode([("t", TestTensor([1]))]), to: "/models/store/x.safetensors")
    }

    /// A config that was read in one stage and is gone in the next changes the plan.
    @Test func aFileThatIsRemovedBetweenStagesIsNamed() throws {
        var request = family.request(Self.budget)
        let first = try Planner.plan(request), statistics = measured(first)
        request.pinnedFiles = first.pinnedFiles
        family.files.remove("/models/b/config.json")
        expectChange(of: "/models/b/config.json", request, [statistics])
    }
}

extension StageTests {
    private static let ties = "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\n"

    /// What workers would count of the tensors' own values: all magnitudes of a model in one bin.
    private func counted(_ plan: Plan) -> [ExactText: TensorStatistics] {
        var statistics: [ExactText: TensorStatistics] = [:]
        for tensor in plan.tensors {
            guard case .measure(_, let stage) = tensor.operation else { continue }
            let all = MagnitudeCounts([MagnitudeCount(bin: 3, count: tensor.elementCount)])
            statistics[ExactText(tensor.name)] = .merge(
                MergeStatistics(
                    ["plus": [0, 0, 5], "minus": [0, 0, 6]],
                    counts: stage.prefixes.mapValues { $0.map { $0 == nil ? MagnitudeCounts([]) : all } }))
        }
        return statistics
    }

    /// Two stages find a threshold for each model, a third counts signs, and the fourth merges.
    @Test func aTrimOfTheModelIsPlannedInFourStages() throws {
        let request = family.request(Self.ties + "parameters: {weight: 1, density: 0.5, trim: model}\n")
        var statistics: [[ExactText: TensorStatistics]] = [], digests: Set<Digest> = []
        for stage in 0..<3 {
            let plan = try Planner.plan(request, after: statistics)
            #expect(plan.hasMoreStages && plan.layout.parts.isEmpty && digests.insert(plan.digest).inserted, "\(stage)")
            #expect(try Planner.plan(request, after: statistics).digest == plan.digest)
            statistics.append(counted(plan))
        }
        let plan = try Planner.plan(request, after: statistics)
        #expect(!plan.hasMoreStages && digests.insert(plan.digest).inserted)
        let threshold = ParameterValue.number(Double(Float(bitPattern: 3 << 16 | 3)))
        for tensor in plan.tensors {
            let values = tensor.values.perInput
            #expect(values.map { $0["threshold"] } == [threshold, threshold, .number(0)])
            #expect(values[2]["plus"] == .number(5 * Double(plan.tensors.count)))
        }
        #expect(throws: TesseraError.self) { try Planner.plan(request, after: statistics + [[:]]) }
    }

    /// One tensor has another density than the rest, so there is no one threshold.
    @Test func aTrimOfTheModelHasOneDensity() throws {
        let request = family.request(
            Self.ties + "parameters: {weight: 1, density: [{filter: norm, value: 0.1}, {value: 0.5}], trim: model}\n")
        let first = try Planner.plan(request)
        let error = #expect(throws: TesseraError.self) { try Planner.plan(request, after: [counted(first)]) }
        #expect(error?.code == .badData && error?.tensor != nil)
    }

    /// Some tensors may be trimmed alone: nothing of them is measured.
    @Test func onlyTensorsWithATrimOfTheModelAreMeasured() throws {
        let first = try family.plan(
            Self.ties + "parameters: {weight: 1, density: 0.5, trim: [{filter: norm, value: tensor}, {value: model}]}\n")
        #expect(first.hasMoreStages && !first.tensors.isEmpty && first.tensors.allSatisfy { !$0.name.contains("norm") })
        #expect(try !family.plan(Self.ties + "parameters: {weight: 1, density: 0.5}\n").hasMoreStages)
    }

    /// What workers report of one shard stays within a message, however many models there are.
    @Test(arguments: [1, 6, 7, 12, 13, 400])
    func histogramsStayWithinAMessage(models: Int) throws {
        var request = family.request(
            "merge_method: ties\nbase_model: base\nmodels:\n" + (0..<models).map { "- model: m\($0)\n" }.joined()
                + "parameters: {weight: 1, density: 0.5, trim: model}\n")
        family.write("base", MemoryFamily.tensors(0, layers: 40))
        for model in 0..<models { family.write("m\(model)", MemoryFamily.tensors(Float(model + 1), layers: 40)) }
        request.shardBytes = 1 << 40
        let plan = try Planner.plan(request)
        for shard in plan.stages.joined() {
            let bins = shard.tensors.reduce(0) { sum, tensor in
                guard case .measure(_, let stage) = tensor.operation else { return sum }
                return sum + stage.histogramCount * min(tensor.elementCount, 1 << stage.width)
            }
            #expect(bins * MagnitudeCounts.bytesPerBin <= 3 << 20)
        }
    }
}

extension StageTests {
    private static let prism = "merge_method: prism\nbase_model: base\nmodels:\n- model: a\n- model: b\n"

    /// A method with statistics of layers measures no tensor outside them. Each tensor gets the numbers of all layers of its
    /// stack, and which of them is its own.
    @Test func layersAreMeasuredEachForItself() throws {
        let request = family.request(Self.prism)
        var statistics: [[ExactText: TensorStatistics]] = []
        for numbers in [["squared_norm": [4, 1, 0]], ["conflict": [0, 0, 1]]] as [[String: [Double]]] {
            let plan = try Planner.plan(request, after: statistics)
            #expect(plan.hasMoreStages && plan.tensors.map(\.name) == (0..<2).map { "model.layers.\($0).mlp.weight" })
            var found: [ExactText: TensorStatistics] = [:]
            for (layer, tensor) in plan.tensors.enumerated() {
                let own = ["interference": [0, 0, Double(layer + 1)], "entries": [0, 0, 6], "all_interference": [0, 0, 7.0]]
                found[ExactText(tensor.name)] = .merge(MergeStatistics(numbers.merging(own) { $1 }))
            }
            statistics.append(found)
        }
        let plan = try Planner.plan(request, after: statistics)
        #expect(!plan.hasMoreStages && plan.tensors.count == 4)
        for tensor in plan.tensors {
            let layer = tensor.name.contains("layers.0") ? 0.0 : tensor.name.contains("layers.1") ? 1 : -1
            #expect(tensor.values.shared["layer"] == .number(layer))
            let base = tensor.values.perInput[2]
            #expect(base["interference"] == (layer < 0 ? nil : .numbers([1, 2])))
            #expect(base["all_interference"] == (layer < 0 ? nil : .number(14)))
            #expect(tensor.values.perInput[0]["squared_norm"] == (layer < 0 ? nil : .number(8)))
        }
    }

    @Test func modelsWithoutLayersAreRefused() {
        for model in ["base", "a", "b"] { family.write(model, [("embed.weight", TestTensor([1, 2]))]) }
        let error = #expect(throws: TesseraError.self) { try family.plan(Self.prism) }
        #expect(error?.code == .badData && error?.problem.contains("no tensor that it merges lies in one") == true)
    }

    /// Points of a sweep whose statistics may differ are measured one after the other, and others together.
    @Test func pointsOfASweepAreMeasuredByTheirValues() throws {
        func stages(_ parameters: String) throws -> Int {
            let request = family.request(Self.ties + "parameters: {weight: 1, trim: model, \(parameters)}\n")
            var statistics: [[ExactText: TensorStatistics]] = []
            while true {
                let plan = try Planner.plan(request, after: statistics)
                guard plan.hasMoreStages else { return statistics.count }
                statistics.append(counted(plan))
            }
        }
        #expect(try stages("density: 0.5, lambda: {sweep: [0.3, 1]}, normalize: {sweep: [true, false]}") == 3)
        #expect(try stages("density: {sweep: [0.1, 0.5]}, lambda: {sweep: [0.3, 1]}") == 6)
    }
}
