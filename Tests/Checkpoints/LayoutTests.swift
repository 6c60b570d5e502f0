import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

@Suite struct LayoutTests {
    private static let fixtures = "\(Repository.root)/Tests/Checkpoints/Fixtures"

    /// Files that Python's safetensors wrote (`Fixtures/make_fixtures.py`): the same tensors give the same bytes here.
    @Test(arguments: ["every-type", "names", "empty-and-scalar"] + (0..<8).map { "padding-\($0)" })
    func writesTheBytesOfTheLibrary(fixture: String) throws {
        let path = "\(Self.fixtures)/\(fixture).safetensors"
        let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        let header = try SafetensorsHeader.read(path: path, in: LocalFiles())
        var random = SplitMix(seed: 1)
        let tensors = header.tensors.map { NewTensor(name: $0.name, dtype: $0.dtype, shape: $0.shape) }.shuffled(using: &random)
        let layout = try CheckpointLayout(tensors: tensors, maxPartBytes: .max)
        let part = try #require(layout.parts.first)
        #expect(layout.parts.count == 1)
        #expect(layout.index == nil)
        #expect(part.header == Array(bytes[..<header.byteCount]))
        #expect(part.fileSize == bytes.count)
        #expect(part.tensors.map(\.name).sorted() == header.tensors.map(\.name).sorted())
        for tensor in part.tensors { #expect(header.tensors.contains(tensor), "\(tensor.name) lies elsewhere") }
    }

    @Test func everyTypeOfTheFormatIsCovered() throws {
        let header = try SafetensorsHeader.read(path: "\(Self.fixtures)/every-type.safetensors", in: LocalFiles())
        // The library's Python side has no names for the two 6-bit types.
        #expect(Set(header.tensors.map(\.dtype)) == Set(DType.allCases).subtracting([.f6E2M3, .f6E3M2]))
    }

    @Test func packsPartsInOrder() throws {
        let tensors = (0..<5).map { NewTensor(name: "t\($0)", dtype: .f32, shape: [25]) }
        // 100 bytes each: two fit, then the limit is reached.
        let layout = try CheckpointLayout(tensors: tensors, maxPartBytes: 250)
        #expect(layout.parts.map { $0.tensors.map(\.name) } == [["t0", "t1"], ["t2", "t3"], ["t4"]])
        #expect(layout.parts.map(\.fileName) == (1...3).map { "model-0000\($0)-of-00003.safetensors" })
        let index = try JSONSerialization.jsonObject(with: Data(try #require(layout.index))) as? [String: Any]
        #expect((index?["metadata"] as? [String: Int]) == ["total_size": 500])
        #expect((index?["weight_map"] as? [String: String])?["t3"] == "model-00002-of-00003.safetensors")
        #expect((index?["weight_map"] as? [String: String])?.count == 5)
    }

    /// In the file, tensors are sorted by type and name; whoever gave them in another order finds them by their numbers.
    @Test func placesAreInTheGivenOrder() throws {
        let tensors = ["c", "a", "b", "d"].enumerated().map { index, name in
            NewTensor(name: name, dtype: index % 2 == 0 ? .u8 : .f32, shape: [4])
        }
        let groups = [("one", [[tensors[0], tensors[1]], [tensors[2]]]), ("two", [[tensors[3]]])]
        for layout in [
            try CheckpointLayout(tensors: tensors, maxPartBytes: .max), try CheckpointLayout(tensors: tensors, maxPartBytes: 20),
            try CheckpointLayout(groups: groups, maxPartBytes: .max), try CheckpointLayout(groups: groups, maxPartBytes: 20),
        ] {
            #expect(layout.places.map { layout.parts[$0.part].tensors[$0.position].name } == ["c", "a", "b", "d"])
        }
    }

    @Test func aTensorAboveTheLimitGetsAPartOfItsOwn() throws {
        let sizes = [10, 1000, 10, 10]
        let layout = try CheckpointLayout(
            tensors: sizes.enumerated().map { NewTensor(name: "t\($0)", dtype: .u8, shape: [$1]) }, maxPartBytes: 100)
        #expect(layout.parts.map { $0.tensors.map(\.name) } == [["t0"], ["t1"], ["t2", "t3"]])
    }

    @Test func headersStayWithinWhatTheHubReads() throws {
        let long = String(repeating: "n", count: 4000)
        let tensors = (0..<7000).map { NewTensor(name: "\(long)\($0)", dtype: .u8, shape: [0]) }
        let error = #expect(throws: TesseraError.self) { try CheckpointLayout(tensors: tensors, maxPartBytes: .max) }
        #expect(error?.advice?.contains("--max-part-size") == true)
    }
}
