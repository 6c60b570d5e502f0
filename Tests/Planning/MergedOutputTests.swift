import Checkpoints
import Core
import Operators
import Planning
import TestSupport
import Testing
import Work

/// A codec may make several tensors of one, and each gets its place in the checkpoint.
@Suite struct MergedOutputTests {
    /// Codes of four bits, and a scale for every row.
    private struct RowCodec: ElementCodec {
        static let name = "rows"

        init(dtype: DType) {}

        func outputs(shape: [Int]) -> [EncodedTensor] {
            [
                EncodedTensor(dtype: .u8, shape: [(shape.reduce(1, *) + 1) / 2], rate: ChunkRate(bits: 4)),
                EncodedTensor(suffix: ".scales", dtype: .f32, shape: [shape[0]], rate: nil, blockSize: 4096),
            ]
        }

        func encode(_ values: UnsafePointer<Float>, of tile: Tile, into targets: TileTargets) {}
    }

    private func outputs(_ names: [String], maxPartBytes: Int = .max) throws -> MergedOutputs {
        let codec = RowCodec(dtype: .f32)
        return try MergedOutputs(names.map { ($0, codec.outputs(shape: [6, 5])) }, maxPartBytes: maxPartBytes)
    }

    @Test func everyOutputIsInTheCheckpoint() throws {
        let merged = try outputs(["b.weight", "c.weight"]), part = try #require(merged.layout.parts.first)
        let header = try SafetensorsHeader(bytes: part.header, fileSize: part.fileSize, file: "model.safetensors")
        #expect(merged.outputs.map { $0.map(\.name) } == [["b.weight", "b.weight.scales"], ["c.weight", "c.weight.scales"]])
        for output in merged.outputs.joined() {
            let entry = try #require(header.tensors.first { $0.name == output.name })
            #expect(output.part == 0 && output.offset == entry.range.lowerBound && output.byteCount == entry.byteCount)
            #expect(output.dtype == entry.dtype)
        }
        #expect(merged.outputs[0].map(\.byteCount) == [15, 24])
        #expect(merged.outputs[0].map(\.blockSize) == [ChunkRate(bits: 4).blockSize, 4096])
        #expect(header.tensors.count == 4)
    }

    /// Parts are filled in the order of the tensors: here two outputs of 39 bytes in all go into each.
    @Test func outputsFillParts() throws {
        let merged = try outputs(["a", "b", "c"], maxPartBytes: 40)
        #expect(merged.outputs.map { $0.map(\.part) } == [[0, 0], [1, 1], [2, 2]])
        let index = String(decoding: try #require(merged.layout.index), as: UTF8.self)
        #expect(index.contains("\"c.scales\": \"model-00003-of-00003.safetensors\""))
    }

    /// A worker compares what the plan says with what its codec makes.
    @Test func aMergesOutputsAreThoseOfItsCodec() throws {
        let plan = try MemoryFamily().plan(MemoryFamily.linear)
        for tensor in plan.tensors {
            guard case .merge(let merge) = tensor.operation else { continue }
            let expected = try merge.codec.codec().outputs(shape: tensor.shape)
            #expect(tensor.outputs.map(\.name) == expected.map { $0.name(of: tensor.name) })
            #expect(tensor.outputs.map(\.blockSize) == expected.map(\.blockSize))
            #expect(throws: Never.self) { try tensor.checkOutputs() }
        }
    }

    @Test func anOutputWithTheNameOfAnotherIsRefused() throws {
        let error = #expect(throws: TesseraError.self) { try outputs(["a", "a.scales"]) }
        #expect(error?.code == .badData && error?.tensor == "a.scales")
        #expect(error?.problem.contains("'a.scales'") == true && error?.advice != nil)
    }
}
