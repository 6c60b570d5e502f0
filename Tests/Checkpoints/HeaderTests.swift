import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

/// Every rule of the format: what breaks one is refused with the file, the tensor and the numbers, and what keeps them all is
/// read.
@Suite(.serialized) struct HeaderTests {
    struct Hostile: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let json: String
        /// Bytes of tensor data.
        let data: Int
        /// What the message has to say.
        let says: String
        /// The tensor that it has to name.
        let tensor: String?

        init(_ description: String, _ json: String, data: Int = 8, says: String, tensor: String? = "t") {
            testDescription = description
            self.json = json
            self.data = data
            self.says = says
            self.tensor = tensor
        }
    }

    private static func entry(_ name: String, _ dtype: String = "F32", _ shape: String = "[2]", _ offsets: String = "[0,8]")
        -> String
    {
        #""\#(name)":{"dtype":"\#(dtype)","shape":\#(shape),"data_offsets":\#(offsets)}"#
    }

    static let hostile: [Hostile] = [
        Hostile("no object", "[]", says: "does not begin with '{'", tensor: nil),
        Hostile("space before the object", " {\(entry("t"))}", says: "does not begin with '{'", tensor: nil),
        Hostile("cut object", "{\(entry("t"))", says: "found the end", tensor: nil),
        Hostile("text after the object", "{\(entry("t"))} x", says: "after the header's object", tensor: nil),
        Hostile("line break as padding", "{\(entry("t"))}\n", says: "after the header's object", tensor: nil),
        Hostile("the same tensor twice", "{\(entry("t")),\(entry("t"))}", says: "duplicate key 't'", tensor: nil),
        Hostile("the same name by an escape", "{\(entry("t")),\(entry("\\u0074"))}", says: "duplicate key 't'", tensor: nil),
        Hostile(
            "a key twice in an entry", #"{"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            says: "duplicate key 'dtype'",
            tensor: nil),
        Hostile(
            "metadata twice", #"{"__metadata__":{},"__metadata__":{},\#(entry("t"))}"#, says: "duplicate key '__metadata__'",
            tensor: nil),
        Hostile("metadata that is no text", #"{"__metadata__":{"a":1},\#(entry("t"))}"#, says: "expected '\"'", tensor: nil),
        Hostile(
            "metadata without end",
            "{\"__metadata__\":{\((0...10_000).map { "\"\($0)\":\"\"" }.joined(separator: ","))},\(entry("t"))}",
            says: "more than 10000 entries of metadata", tensor: nil),
        Hostile("metadata that is a list", #"{"__metadata__":[],\#(entry("t"))}"#, says: "expected '{'", tensor: nil),
        Hostile(
            "unknown key", #"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}}"#, says: "unknown key 'strides'"
        ),
        Hostile("no dtype", #"{"t":{"shape":[2],"data_offsets":[0,8]}}"#, says: "must have dtype, shape"),
        Hostile("no shape", #"{"t":{"dtype":"F32","data_offsets":[0,8]}}"#, says: "must have dtype, shape"),
        Hostile("no offsets", #"{"t":{"dtype":"F32","shape":[2]}}"#, says: "must have dtype, shape"),
        Hostile("unknown dtype", "{\(entry("t", "F128"))}", says: "unknown dtype 'F128'"),
        Hostile("hole at the start", "{\(entry("t", "F32", "[1]", "[4,8]"))}", says: "leaves a gap after the previous tensor"),
        Hostile(
            "hole in the middle", "{\(entry("a", "F32", "[1]", "[0,4]")),\(entry("t", "F32", "[1]", "[8,12]"))}", data: 12,
            says: "leaves a gap after the previous tensor"),
        Hostile(
            "overlap", "{\(entry("a", "F32", "[2]", "[0,8]")),\(entry("t", "F32", "[2]", "[4,12]"))}", data: 12,
            says: "overlaps the previous tensor"),
        Hostile("the same bytes twice", "{\(entry("a")),\(entry("t"))}", says: "overlaps the previous tensor"),
        Hostile("bytes left over", "{\(entry("t"))}", data: 9, says: "end at byte", tensor: nil),
        Hostile(
            "beyond the file", "{\(entry("t", "F32", "[4]", "[0,16]"))}", says: "ends at byte 16, but there are only 8 bytes"),
        Hostile("offsets backwards", "{\(entry("t", "F32", "[0]", "[8,0]"))}", says: "not a valid range"),
        Hostile("one offset", "{\(entry("t", "F32", "[2]", "[0]"))}", says: "not a valid range"),
        Hostile("three offsets", "{\(entry("t", "F32", "[2]", "[0,8,8]"))}", says: "more than 2 numbers", tensor: nil),
        Hostile("negative offset", "{\(entry("t", "F32", "[2]", "[-8,8]"))}", says: "integer", tensor: nil),
        Hostile(
            "offset above 64 bits", "{\(entry("t", "F32", "[2]", "[0,99999999999999999999]"))}", says: "too large", tensor: nil),
        Hostile("fraction as offset", "{\(entry("t", "F32", "[2]", "[0,8.0]"))}", says: "integer", tensor: nil),
        Hostile("shape does not fill the range", "{\(entry("t", "F32", "[3]"))}", says: "needs 12"),
        Hostile("shape overflows", "{\(entry("t", "F32", "[4294967296,4294967296]"))}", says: "which is too large"),
        Hostile(
            "shape overflows beside a zero", "{\(entry("t", "F32", "[4294967296,4294967296,4294967296,0]", "[0,0]"))}", data: 0,
            says: "which is too large"),
        Hostile("bits that fill no byte", "{\(entry("t", "F4", "[3]", "[0,2]"))}", data: 2, says: "not a whole number of bytes"),
        Hostile(
            "rank 65", "{\(entry("t", "F32", "[\(Array(repeating: "1", count: 65).joined(separator: ","))]", "[0,4]"))}",
            says: "more than 64", tensor: nil),
        Hostile("empty name", "{\(entry(""))}", says: "a tensor name has 0 bytes", tensor: nil),
        Hostile(
            "endless name", "{\(entry(String(repeating: "n", count: 5000)))}", says: "a tensor name has 5000 bytes", tensor: nil),
        Hostile("line break in a name", "{\(entry("t\\nERROR forged"))}", says: "control character", tensor: nil),
        Hostile("NUL in a name", "{\(entry("t\\u0000"))}", says: "control character", tensor: nil),
        Hostile("half a surrogate pair", "{\(entry("\\ud83e"))}", says: "surrogate", tensor: nil),
        Hostile("deep nesting", #"{"t":\#(String(repeating: "[", count: 10_000))"#, says: "expected '{'", tensor: nil),
        Hostile("comma at the end", "{\(entry("t")),}", says: "expected '\"'", tensor: nil),
        Hostile("nothing at all", "", data: 0, says: "does not begin with '{'", tensor: nil),
    ]

    @Test(arguments: hostile)
    func refuses(_ hostile: Hostile) throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/evil.safetensors"
        try Self.write(json: Array(hostile.json.utf8), data: hostile.data, to: path)
        let error = #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: path, in: LocalFiles()) }
        #expect(error?.code == .badData)
        #expect(error?.file == path)
        #expect(error?.tensor == hostile.tensor)
        #expect(error?.problem.contains(hostile.says) == true, "said: \(error?.problem ?? "nothing")")
    }

    @Test func refusesNamesThatAreNotUTF8() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/evil.safetensors"
        try Self.write(json: Array("{\"".utf8) + [0xff, 0xfe] + Array("\":{}}".utf8), data: 0, to: path)
        let error = #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: path, in: LocalFiles()) }
        #expect(error?.problem.contains("not valid UTF-8") == true)
    }

    @Test(arguments: [
        (0, "too short for a header"), (7, "too short for a header"), (8, "has only 8"), (100, "has only 100"),
    ])
    func refusesFilesThatEndEarly(length: Int, says: String) throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/cut.safetensors"
        let whole: [UInt8] = [200, 0, 0, 0, 0, 0, 0, 0] + Array(repeating: 0x20, count: 200)
        try Data(whole.prefix(length)).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: path, in: LocalFiles()) }
        #expect(error?.description.contains(says) == true, "said: \(error?.description ?? "nothing")")
    }

    @Test(arguments: [100_000_001, UInt64(Int.max), UInt64.max])
    func refusesALyingLengthBeforeItAllocates(length: UInt64) throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/lie.safetensors"
        try Data((0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + [0x7b]).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: path, in: LocalFiles()) }
        #expect(error?.problem.contains("is \(length) bytes; safetensors allows at most 100000000") == true)
    }

    @Test func refusesWhatIsNoFile() throws {
        let directory = try TemporaryDirectory()
        #expect(
            #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: directory.path, in: LocalFiles()) }?.code
                == .badData)
        let fifo = "\(directory.path)/pipe"
        #expect(mkfifo(fifo, 0o600) == 0)
        #expect(#expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: fifo, in: LocalFiles()) }?.code == .badData)
        #expect(
            #expect(throws: TesseraError.self) { try SafetensorsHeader.read(path: "\(directory.path)/none", in: LocalFiles()) }?
                .code
                == .inputMissing)
    }

    /// No mutation of a good header may crash the reader, or make it accept tensors outside the file.
    @Test func survivesMutations() throws {
        let good = Array(
            try Data(contentsOf: URL(fileURLWithPath: "\(Repository.root)/Tests/Checkpoints/Fixtures/every-type.safetensors")))
        let length = good[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        var random = SplitMix(seed: 20_261_124)
        var accepted = 0
        for _ in 0..<4_000 {
            var header = Array(good[..<(8 + length)])
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let position = Int.random(in: 8..<header.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: header[position] = UInt8.random(in: 0...255, using: &random)
                case 1: header[position] = Array(#"{}[]",:0123456789"#.utf8).randomElement(using: &random) ?? 0
                default: header[position] = header[Int.random(in: 8..<header.count, using: &random)]
                }
            }
            guard let read = try? SafetensorsHeader(bytes: header, fileSize: good.count, file: "mutant") else { continue }
            accepted += 1
            #expect(read.tensors.allSatisfy { $0.range.lowerBound >= header.count && $0.range.upperBound <= good.count })
            #expect(read.tensors.reduce(0) { $0 + $1.byteCount } == good.count - header.count)
        }
        #expect((1..<4_000).contains(accepted), "some mutations, such as in names, are harmless")
    }

    @Test func readsWhatTheFormatAllows() throws {
        let directory = try TemporaryDirectory()
        // Unaligned: three bytes before a float; a scalar; tensors without elements; padding; a name with an escape.
        let json = """
            {"__metadata__":{"format":"pt","x":"y"},"late":\(#"{"dtype":"F32","shape":[],"data_offsets":[3,7]}"#),\
            "early":\(#"{"shape":[3],"data_offsets":[0,3],"dtype":"U8"}"#),\
            "gr\\u00f6\\u00dfe":\(#"{"dtype":"I64","shape":[7,0],"data_offsets":[7,7]}"#)}   
            """
        let path = "\(directory.path)/odd.safetensors"
        try Self.write(json: Array(json.utf8), data: 7, to: path)
        let header = try SafetensorsHeader.read(path: path, in: LocalFiles())
        #expect(header.metadata == ["format": "pt", "x": "y"])
        #expect(header.tensors.map(\.name) == ["early", "late", "größe"])
        #expect(header.tensors.map(\.elementCount) == [3, 1, 0])
        #expect(header.tensors.map { $0.range.lowerBound - header.byteCount } == [0, 3, 7])
    }

    private static func write(json: [UInt8], data: Int, to path: String) throws {
        let prefix = (0..<8).map { UInt8(truncatingIfNeeded: json.count >> (8 * $0)) }
        try Data(prefix + json + Array(repeating: 0, count: data)).write(to: URL(fileURLWithPath: path))
    }
}
