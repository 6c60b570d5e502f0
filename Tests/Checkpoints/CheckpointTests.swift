import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

@Suite struct CheckpointTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func writePart(_ name: String, _ tensors: [String]) throws {
        let bytes = TestTensor.encode(tensors.map { ($0, TestTensor([1, 2])) })
        try Data(bytes).write(to: URL(fileURLWithPath: "\(directory.path)/\(name)"))
    }

    private func writeIndex(_ map: [String: String]) throws {
        let entries = map.sorted { $0.key < $1.key }.map { "\"\($0)\": \"\($1)\"" }.joined(separator: ", ")
        try directory.write(
            "{\"metadata\": {\"total_size\": 16}, \"weight_map\": {\(entries)}}", to: "model.safetensors.index.json")
    }

    private func problem() -> TesseraError? {
        #expect(throws: TesseraError.self) { try Checkpoint.open(directory.path, in: LocalFiles()) }
    }

    @Test func opensADirectoryWithoutAnIndex() throws {
        try writePart("model.safetensors", ["b", "a"])
        try directory.write(#"{"model_type": "x"}"#, to: "config.json")
        let checkpoint = try Checkpoint.open(directory.path, in: LocalFiles())
        #expect(checkpoint.tensorNames == ["a", "b"])
        #expect(checkpoint.config?.string(["model_type"]) == "x")
        #expect(checkpoint.tensor(named: "b")?.entry.range.count == 8)
        #expect(checkpoint.tensor(named: "c") == nil)
    }

    @Test func opensADirectoryByItsIndex() throws {
        try writePart("model-00002-of-00002.safetensors", ["a"])
        try writePart("model-00001-of-00002.safetensors", ["b"])
        try writeIndex(["a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"])
        let checkpoint = try Checkpoint.open(directory.path, in: LocalFiles())
        #expect(checkpoint.parts.map(\.fileName) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
        #expect(checkpoint.tensor(named: "a")?.part == 1)
    }

    @Test func opensASingleFile() throws {
        try writePart("other.safetensors", ["a"])
        let checkpoint = try Checkpoint.open("\(directory.path)/other.safetensors", in: LocalFiles())
        #expect(checkpoint.directory == directory.path)
        #expect(checkpoint.tensorNames == ["a"])
    }

    @Test func refusesAnIndexThatNamesATensorElsewhere() throws {
        try writePart("x.safetensors", ["a"])
        try writePart("y.safetensors", ["b"])
        try writeIndex(["a": "y.safetensors", "b": "x.safetensors"])
        #expect(problem()?.description.contains("the index says it is in y.safetensors, but x.safetensors holds it") == true)
    }

    @Test func refusesAnIndexThatNamesATensorNobodyHas() throws {
        try writePart("x.safetensors", ["a"])
        try writeIndex(["a": "x.safetensors", "b": "x.safetensors"])
        let error = problem()
        #expect(error?.tensor == "b")
        #expect(error?.problem.contains("does not contain it") == true)
    }

    @Test func refusesATensorThatTheIndexLeavesOut() throws {
        try writePart("x.safetensors", ["a", "b"])
        try writeIndex(["a": "x.safetensors"])
        #expect(problem()?.problem == "the index does not list it")
    }

    @Test func refusesATensorInTwoParts() throws {
        try writePart("x.safetensors", ["a"])
        try writePart("y.safetensors", ["a", "b"])
        try writeIndex(["a": "x.safetensors", "b": "y.safetensors"])
        #expect(problem()?.problem == "is also in x.safetensors")
    }

    @Test func refusesAPartThatIsMissing() throws {
        try writeIndex(["a": "x.safetensors"])
        let error = problem()
        #expect(error?.code == .inputMissing)
        #expect(error?.file?.hasSuffix("/x.safetensors") == true)
    }

    @Test(arguments: ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "x.bin"])
    func refusesAnIndexThatLeadsOut(name: String) throws {
        try writeIndex(["a": name])
        #expect(problem()?.problem.contains("not a safetensors file beside it") == true)
    }

    @Test(arguments: [
        "", "{", "[]", #"{"weight_map": {}}"#, #"{"weight_map": {"a": 1}}"#,
        #"{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}"#,
    ])
    func refusesABrokenIndex(text: String) throws {
        try directory.write(text, to: "model.safetensors.index.json")
        #expect(problem()?.code == .badData)
    }

    @Test func explainsWhatItCannotRead() throws {
        #expect(problem()?.problem == "contains no safetensors checkpoint")
        try directory.write("", to: "pytorch_model.bin")
        #expect(problem()?.advice?.contains("safe_serialization") == true)
        try FileManager.default.removeItem(atPath: "\(directory.path)/pytorch_model.bin")
        try writePart("lora.safetensors", ["a"])
        #expect(problem()?.advice?.contains("lora.safetensors") == true)
    }

    @Test func mappedAndReadSourcesAgree() throws {
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
        let path = "\(directory.path)/bytes"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let sources: [any ByteSource] = [try MappedSource(ReadableFile(path)), PreadSource(try ReadableFile(path))]
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 70_000, alignment: 64)
        defer { scratch.deallocate() }
        for source in sources {
            #expect(source.size == bytes.count)
            for range in [0..<1, 0..<70_000, 31_337..<99_999, 99_999..<100_000, 5..<5] {
                #expect(try source.withBytes(range, scratch: scratch) { Array($0) } == Array(bytes[range]))
                // What was let go of is still there.
                source.release(range)
                #expect(try source.withBytes(range, scratch: scratch) { Array($0) } == Array(bytes[range]))
            }
            for range in [99_999..<100_001, 100_000..<100_001] {
                #expect(throws: TesseraError.self) { try source.withBytes(range, scratch: scratch) { _ in } }
            }
        }
    }

    @Test func anEmptyFileIsASource() throws {
        let path = try directory.write("", to: "empty")
        #expect(try MappedSource(ReadableFile(path)).size == 0)
    }
}
