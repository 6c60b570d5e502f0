import Foundation
import TestSupport
import Testing

/// A store of task vectors as `docs/task-vectors.md` describes it, read with nothing of what is under test.
struct StoreOnDisk {
    struct Index: Decodable {
        struct Tensor: Decodable { let name: String, dtype: String, shape: [Int] }
        struct Form: Decodable {
            let form: String
            let kept: Int?, bits: Int?
            let dtype: String?
        }
        struct Shared: Decodable {
            let files: [String]
            let forms: [Form?]
        }
        struct Task: Decodable {
            let name: String
            let files: [String]
            let forms: [Form?]
            let factor: Double
            let error: Double
            let energy: Double
            let lost: [String]
        }
        let tensors: [Tensor]
        let shared: Shared?
        let tasks: [Task]
    }

    let path: String
    let index: Index

    init(_ path: String) throws {
        self.path = path
        index = try JSONDecoder().decode(
            Index.self, from: Data(contentsOf: URL(fileURLWithPath: "\(path)/task-vectors.json")))
    }

    func task(_ name: String) throws -> Index.Task { try #require(index.tasks.first { $0.name == name }) }

    /// The parts of a task's tensors, by their names in the files.
    func parts(of task: String) throws -> [String: TestTensor] { try parts(in: self.task(task).files) }

    func sharedParts() throws -> [String: TestTensor] { try parts(in: index.shared?.files ?? []) }

    private func parts(in files: [String]) throws -> [String: TestTensor] {
        try files.reduce(into: [:]) { $0.merge(try TestTensor.read("\(path)/\($1)")) { first, _ in first } }
    }

    var files: Set<String> { Set(index.tasks.flatMap(\.files) + (index.shared?.files ?? [])) }

    /// Bytes of the tensors in the safetensors files, without their headers.
    func tensorBytes() throws -> Int {
        try files.reduce(0) { total, file in
            try total + TestTensor.read("\(path)/\(file)").values.reduce(0) { $0 + $1.bytes.count }
        }
    }

    /// Bit `k` of a stream is bit `k % 8` of byte `k / 8`; code `i` lies in the bits `i · bits ..< (i + 1) · bits`.
    static func codes(_ stream: [UInt8], bits: Int, count: Int) -> [Int] {
        (0..<count).map { index in
            (0..<bits).reduce(0) { code, bit in
                let place = index * bits + bit
                return code | Int(stream[place / 8] >> (place % 8) & 1) << bit
            }
        }
    }
}

/// A directory in which stores are made and read.
final class StoreBench: Sendable {
    let directory: TemporaryDirectory
    var path: String { directory.path }

    init() throws { directory = try TemporaryDirectory() }

    @discardableResult
    func run(
        _ recipe: String, to output: String, _ arguments: [String] = [], sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> Tessera.Outcome {
        try directory.write(recipe, to: "\(output).yml")
        let outcome = try await Tessera.run(["run", "\(output).yml", output] + arguments, in: path)
        try #require(outcome.exitCode == 0, "\(outcome.errors)", sourceLocation: sourceLocation)
        return outcome
    }

    /// A recipe for a store of fine-tunes in the directory.
    static func recipe(_ how: String, _ tasks: [String], base: String = "base", extend: String? = nil) -> String {
        "\(how)\nbase_model: \(base)\nmodels:\n" + tasks.map { "- model: \($0)\n" }.joined()
            + (extend.map { "extend: \($0)\n" } ?? "")
    }

    /// The recipe that rebuilds one fine-tune.
    static func rebuilding(_ reference: String, more: String = "") -> String {
        "merge_method: passthrough\n\(more)models:\n- model: \(reference)\n"
    }

    /// A fine-tune, rebuilt from a store.
    func rebuilt(
        _ task: String, from store: String, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [String: TestTensor] {
        try await run(Self.rebuilding("\(store)#\(task)"), to: "rebuilt", ["--overwrite"], sourceLocation: sourceLocation)
        return try TestTensor.read("\(path)/rebuilt")
    }
}
