import Core
import Foundation
import TestSupport
import Testing

/// `tessera stats`, and what `compare` and `inspect` say about models that are not checkpoints.
@Suite struct StatsTests {
    private let bench: StoreBench
    private var path: String { bench.path }

    init() throws { bench = try StoreBench() }

    private struct Report: Decodable {
        struct Group: Decodable {
            struct Model: Decodable {
                let model: String
                let norm, relativeChange, movedShare, largestChange: Double?
            }
            struct Pair: Decodable {
                let first, second: String
                let cosine, signAgreement: Double?
            }
            let name: String
            let layer: Int?
            let elements: Int
            let baseNorm: Double?
            let models: [Model]
            let pairs: [Pair]
        }
        struct LeftOut: Decodable { let tensor, reason: String }
        let total: Group
        let layers, modules, tensors: [Group]
        let leftOut: [LeftOut]
    }

    private func stats(_ arguments: [String], in directory: String? = nil) async throws -> Report {
        let outcome = try await Tessera.run(["stats", "--json"] + arguments, in: directory ?? path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        return try JSONDecoder().decode(Report.self, from: Data(outcome.output.utf8))
    }

    private func near(_ found: Double?, _ wanted: Double, _ tolerance: Double = 1e-12) -> Bool {
        found.map { ($0 - wanted).magnitude <= tolerance * max(1, wanted.magnitude) } ?? false
    }

    /// Multiples of 1/64, so that differences are exact; a third of the entries does not move.
    private func values(_ count: Int, seed: UInt64) -> (base: [Float], tunes: [[Float]]) {
        var generator = SplitMix(seed: seed)
        func number(_ limit: Int) -> Float { Float(Int.random(in: -limit...limit, using: &generator)) / 64 }
        let base = (0..<count).map { _ in number(63) }
        return (base, (0..<2).map { _ in base.indices.map { $0 % 3 == 0 ? base[$0] : base[$0] + number(3) } })
    }

    @Test func theNumbersAreThoseOfTheirDefinitions() async throws {
        let (base, tunes) = values(3 * 8192 + 77, seed: 3)
        for (name, values) in [("base", base), ("one", tunes[0]), ("two", tunes[1])] {
            try TestTensor.writeCheckpoint("\(path)/\(name)", [("layers.0.a.weight", TestTensor(values))])
        }
        let report = try await stats(["base", "one", "two"]), group = report.total
        let x = zip(tunes[0], base).map { Double($0 - $1) }, y = zip(tunes[1], base).map { Double($0 - $1) }
        func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
        let both = zip(x, y).count { $0 != 0 && $1 != 0 }
        #expect(group.elements == base.count)
        #expect(near(group.baseNorm, dot(base.map(Double.init), base.map(Double.init)).squareRoot()))
        for (model, change) in zip(group.models, [x, y]) {
            #expect(near(model.norm, dot(change, change).squareRoot()))
            #expect(near(model.relativeChange, dot(change, change).squareRoot() / (group.baseNorm ?? 0)))
            #expect(near(model.movedShare, Double(change.count { $0 != 0 }) / Double(base.count)))
            #expect(model.largestChange == change.map(\.magnitude).max())
        }
        let pair = try #require(group.pairs.first)
        #expect(near(pair.cosine, dot(x, y) / (dot(x, x) * dot(y, y)).squareRoot()))
        #expect(near(pair.signAgreement, Double(zip(x, y).count { $0 * $1 > 0 }) / Double(both)))
        #expect(report.tensors.map(\.name) == ["layers.0.a.weight"])
        #expect(report.modules.map(\.name) == ["a"] && report.layers.map(\.layer) == [0])
    }

    @Test func theNumbersDependOnNeitherThreadsNorMemory() async throws {
        // More than one span of tiles.
        let (base, tunes) = values(1_300_000, seed: 4)
        for (name, values) in [("base", base), ("one", tunes[0])] {
            let tensors = [
                ("a.weight", TestTensor(bfloat16: values)), ("b.weight", TestTensor(bfloat16: Array(values[..<9000]))),
            ]
            try TestTensor.writeCheckpoint("\(path)/\(name)", tensors)
        }
        var outputs: Set<String> = []
        for options in [["--threads", "1"], ["--threads", "5"], ["--threads", "2", "--memory", "64MiB"]] {
            let outcome = try await Tessera.run(["stats", "base", "one", "--json"] + options, in: path)
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
            outputs.insert(outcome.output)
        }
        #expect(outputs.count == 1)
    }

    /// In each type, what a tensor holds are the same numbers.
    @Test(arguments: [DType.f64, .f32, .bf16, .f8E4M3, .f8E5M2])
    func everyTypeIsRead(dtype: DType) async throws {
        func tensor(_ values: [Float]) -> TestTensor {
            switch dtype {
            case .f64: TestTensor(.f64, [4], bytes: values.flatMap { withUnsafeBytes(of: Double($0).bitPattern, Array.init) })
            case .bf16: TestTensor(bfloat16: values)
            case .f32: TestTensor(values)
            default: TestTensor(float8: values, dtype)
            }
        }
        try TestTensor.writeCheckpoint("\(path)/base", [("t", tensor([1, 2, -1, 0.5]))])
        try TestTensor.writeCheckpoint("\(path)/one", [("t", tensor([1.5, 2, -2, 0.5]))])
        let group = try await stats(["base", "one"]).total
        #expect(near(group.models.first?.norm, 1.25.squareRoot()) && group.models.first?.movedShare == 0.5)
    }

    @Test func adaptersAndTasksOfStoresAreModels() async throws {
        for (seed, name) in ["base", "one", "two"].enumerated() {
            try SmallFamily.write(name, seed: UInt64(seed), in: bench.directory)
        }
        try SmallFamily.writeAdapter("adapter", in: bench.directory)
        try await bench.run(
            StoreBench.recipe("quantize: {bits: 8, min_rank: 0}", ["./one", "./two"], base: "./base"), to: "store")
        let report = try await stats(["base", "base+adapter", "one", "store#one"])
        let moved = report.tensors.filter { ($0.models[0].norm ?? 0) > 0 }
        #expect(moved.map(\.name) == ["model.layers.1.self_attn.q_proj.weight"])
        #expect((report.total.pairs.last?.cosine ?? 0) > 0.9999)
        #expect(report.layers.map(\.layer) == [0, 1, 2, 3])
        #expect(report.modules.map(\.name).contains("self_attn.q_proj"))
        #expect(report.modules.map(\.name).contains("lm_head"))
    }

    @Test func whatCannotBeMeasuredIsNamed() async throws {
        let common = ("t", TestTensor([1, 2]))
        try TestTensor.writeCheckpoint(
            "\(path)/base", [common, ("own", TestTensor([1])), ("ids", TestTensor(.i64, [1], bytes: Array(0..<8)))])
        try TestTensor.writeCheckpoint(
            "\(path)/one", [common, ("more", TestTensor([1])), ("ids", TestTensor(.i64, [1], bytes: Array(0..<8)))])
        let report = try await stats(["base", "one"])
        #expect(report.tensors.map(\.name) == ["t"])
        #expect(report.leftOut.map(\.tensor) == ["ids", "more", "own"])
        #expect(report.leftOut.map(\.reason) == ["I64 has no arithmetic", "missing in base", "missing in one"])
        let table = try await Tessera.run(["stats", "base", "one"], in: path)
        #expect(table.errors.contains("left out: ids (I64 has no arithmetic) and 2 more"), "\(table.errors)")
        let nothing = try await Tessera.run(["stats", "base", "nowhere"], in: path)
        #expect(nothing.exitCode == 66 && nothing.errors.contains("nowhere"), "\(nothing.errors)")
    }

    // MARK: How it is shown

    private static let tunes = ["rotated", "inverted", "flipped", "upside-down", "noisy", "striped", "rolled", "quantised"]

    @Test func tablesFitTheTerminal() async throws {
        let outcome = try await Tessera.run(["stats", "base"] + Self.tunes, in: Repository.digits)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.allSatisfy { $0.count <= 80 }, "\(outcome.output)")
        for words in ["CHANGE", "COSINE", "SAME SIGN", "LAYER", "MODULE", "attention.k_proj", "upside-down"] {
            #expect(outcome.output.contains(words), "\(words): \(outcome.output)")
        }
        let short = try await Tessera.run(["stats", "base", "noisy", "--tensors"], in: Repository.digits)
        #expect(short.output.contains("TENSOR") && short.output.contains("vit.layers.0.mlp.fc2.weight"))
    }

    @Test func aSpreadsheetReadsIt() async throws {
        let outcome = try await Tessera.run(["stats", "base", "noisy", "striped", "--csv"], in: Repository.digits)
        let rows = outcome.output.split(separator: "\n").map { $0.split(separator: ",", omittingEmptySubsequences: false) }
        let head = try #require(rows.first)
        #expect(head.joined(separator: " ").hasPrefix("scope name model other elements base_norm norm relative_change"))
        #expect(rows.allSatisfy { $0.count == head.count })
        // Of each part two models and a pair; numbers are exact.
        let report = try await stats(["base", "noisy", "striped"], in: Repository.digits)
        #expect(rows.count == 1 + 3 * (1 + report.layers.count + report.modules.count + report.tensors.count))
        #expect(Double(rows[1][7]) == report.total.models[0].relativeChange)
        #expect(Double(rows[3][10]) == report.total.pairs[0].cosine)
    }

    /// The picture of docs/inspection.md is what the command there draws.
    @Test func thePlotIsDrawn() async throws {
        let picture = "\(path)/changes.svg"
        let outcome = try await Tessera.run(["stats", "base"] + Self.tunes + ["--plot", picture], in: Repository.digits)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        let drawn = try String(contentsOfFile: picture, encoding: .utf8)
        // A curve for each kind of matrix and model, and the legend; a cell for each two models.
        let curves = drawn.matches(of: #/<polyline [^>]*stroke-width="1.6"/#).count,
            cells = drawn.matches(of: #/fill-opacity/#).count
        #expect(curves == 6 * 8 + 8 && cells == 64, "\(curves) \(cells)")
        #expect(try drawn == String(contentsOfFile: "\(Repository.root)/docs/stats.svg", encoding: .utf8))
    }

    // MARK: compare and inspect

    @Test func aTaskOfAStoreIsComparedAndListed() async throws {
        for (seed, name) in ["base", "one", "two"].enumerated() {
            try SmallFamily.write(name, seed: UInt64(seed), in: bench.directory)
        }
        try await bench.run(StoreBench.recipe("quantize: {budget: 3 bits}", ["./one", "./two"], base: "./base"), to: "store")
        try await bench.run(StoreBench.rebuilding("./store#one"), to: "rebuilt")
        let same = try await Tessera.run(["compare", "store#one", "rebuilt"], in: path)
        #expect(same.exitCode == 0 && same.output.contains("identical, bit for bit"), "\(same.output)\(same.errors)")
        let other = try await Tessera.run(["compare", "store#one", "one"], in: path)
        #expect(other.exitCode == 1 && other.errors.isEmpty && other.output.hasSuffix("tensors differ\n"), "\(other.errors)")

        let index = try StoreOnDisk("\(path)/store")
        for (arguments, tasks) in [(["store#one"], ["one"]), (["store"], ["one", "two"])] {
            let outcome = try await Tessera.run(["inspect"] + arguments + ["--errors", "--json"], in: path)
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
            let found = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
            let entries = try tasks.map { try index.task($0) }
            let error = entries.reduce(0) { $0 + $1.error } / entries.reduce(0) { $0 + $1.energy }
            #expect(near(found?["error"] as? Double, error, 1e-9), "\(found?["error"] ?? "none") \(error)")
            let tensors = try #require(found?["tensors"] as? [[String: Any]])
            #expect(tensors.count == index.index.tensors.count)
            #expect(tensors.allSatisfy { ($0["bits"] as? Double ?? 0) > 0 && $0["error"] is Double }, "\(tensors)")
        }
        let elsewhere = try await Tessera.run(["inspect", "\(path)/store#one", "--errors"], in: "/")
        #expect(elsewhere.exitCode == 66 && elsewhere.errors.contains("go where that was run"), "\(elsewhere.errors)")
        let text = try await Tessera.run(["inspect", "store#two"], in: path)
        #expect(text.output.contains("STORED AS") && text.output.contains("BITS    stored bits per element"), "\(text.output)")
    }

    /// An index may claim any error: what is shown of it is a number, or an error with the file.
    @Test(arguments: ["1e308", "1e-308", "0", "1e309", "-1e308"])
    func errorsBeyondAllBoundsAreShown(number: String) async throws {
        for (seed, name) in ["base", "one"].enumerated() {
            try SmallFamily.write(name, seed: UInt64(seed), in: bench.directory)
        }
        try await bench.run(StoreBench.recipe("quantize: {bits: 4}", ["./one"], base: "./base"), to: "store")
        let index = "\(path)/store/task-vectors.json", text = try String(contentsOfFile: index, encoding: .utf8)
        for field in ["error", "energy"] {
            let changed = text.replacing(try Regex("\"\(field)\": ?[-+.0-9e]+"), with: "\"\(field)\":\(number)")
            #expect(changed != text)
            try changed.write(toFile: index, atomically: true, encoding: .utf8)
            for options in [[], ["--errors"], ["--json"]] {
                let outcome = try await Tessera.run(["inspect", "store"] + options, in: path)
                #expect([0, 65].contains(outcome.exitCode), "\(field) \(options): \(outcome.exitCode) \(outcome.errors)")
                if outcome.exitCode == 65 { #expect(outcome.errors.contains("task-vectors.json"), "\(outcome.errors)") }
            }
        }
    }

    @Test func aStoreTakesWhatItsFilesTake() async throws {
        for (seed, name) in ["base", "one"].enumerated() {
            try SmallFamily.write(name, seed: UInt64(seed), in: bench.directory)
        }
        try await bench.run(StoreBench.recipe("quantize: {bits: 4}", ["./one"], base: "./base"), to: "store")
        let outcome = try await Tessera.run(["inspect", "store", "--json"], in: path)
        let listing = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
        let sizes = try FileManager.default.contentsOfDirectory(atPath: "\(path)/store").map {
            try FileManager.default.attributesOfItem(atPath: "\(path)/store/\($0)")[.size] as? Int ?? 0
        }
        #expect(listing?["bytesOnDisk"] as? Int == sizes.reduce(0, +) && listing?["filesOnDisk"] as? Int == sizes.count)
    }

    @Test func aPlanOfAStoreSaysWhatIsKnown() async throws {
        for (seed, name) in ["base", "one"].enumerated() {
            try SmallFamily.write(name, seed: UInt64(seed), in: bench.directory)
        }
        try bench.directory.write(
            StoreBench.recipe("quantize: {budget: 3 bits}", ["./one"], base: "./base"), to: "store.yml")
        let outcome = try await Tessera.run(["plan", "store.yml"], in: path)
        #expect(
            outcome.exitCode == 0 && !outcome.output.contains("OUTPUT") && !outcome.output.contains("0 B"), "\(outcome.output)")
        #expect(outcome.output.contains("these shards measure 39 tensors"), "\(outcome.output)")
    }
}
