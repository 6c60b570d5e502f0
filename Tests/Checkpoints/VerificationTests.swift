import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

/// A directory with a manifest, as a job leaves it: 20 MB in two parts, one tensor of three blocks, and sidecars.
@Suite struct VerificationTests {
    private let directory: TemporaryDirectory
    private let layout: CheckpointLayout
    /// Bytes of the blocks of the small tensor: it has blocks of its own size.
    private static let smallBlock = 256
    private static let sidecars = [
        "config.json": #"{"model_type": "x"}"#, "recipe.yml": "merge_method: linear\n", "1_Pooling/config.json": #"{"a": 1}"#,
    ]

    init() throws {
        directory = try TemporaryDirectory()
        layout = try CheckpointLayout(
            tensors: [
                NewTensor(name: "big", dtype: .u8, shape: [2 * TreeDigest.blockSize + 1000]),
                NewTensor(name: "empty", dtype: .f32, shape: [0]), NewTensor(name: "small", dtype: .bf16, shape: [300]),
            ], maxPartBytes: 2 * TreeDigest.blockSize)
        var parts: [ManifestPart] = []
        for part in layout.parts {
            var bytes = part.header
            var blocks: [TensorBlocks] = []
            for tensor in part.tensors {
                let data = [UInt8](repeating: 0x5a, count: tensor.byteCount)
                let size = tensor.name == "small" ? Self.smallBlock : TreeDigest.blockSize
                let digests = try stride(from: 0, to: data.count, by: size).map {
                    try Digest.sha256(of: Array(data[$0..<min(data.count, $0 + size)]))
                }
                blocks.append(TensorBlocks(size: size, digests: digests))
                bytes += data
            }
            try Data(bytes).write(to: URL(fileURLWithPath: "\(directory.path)/\(part.fileName)"))
            parts.append(try ManifestPart(layout: part, blocks: blocks))
        }
        var files = try Self.sidecars.map {
            ManifestFile(file: $0, size: $1.utf8.count, digest: try .sha256(of: Array($1.utf8)))
        }
        try FileManager.default.createDirectory(atPath: "\(directory.path)/1_Pooling", withIntermediateDirectories: false)
        for (name, text) in Self.sidecars { try directory.write(text, to: name) }
        let index = try #require(layout.index)
        try Data(index).write(to: URL(fileURLWithPath: "\(directory.path)/\(Checkpoint.indexName)"))
        files.append(ManifestFile(file: Checkpoint.indexName, size: index.count, digest: try .sha256(of: index)))
        let zero = try Digest.sha256(of: [])
        let manifest = Manifest(
            tessera: "test", numericsVersion: 1, recipe: zero, plan: zero, inputs: [], parts: parts, files: files)
        try Data(try manifest.encoded()).write(to: URL(fileURLWithPath: "\(directory.path)/\(Manifest.fileName)"))
        let sums = SHA256Sums.text(of: try directory.digests())
        try Data(sums.utf8).write(to: URL(fileURLWithPath: "\(directory.path)/\(SHA256Sums.fileName)"))
    }

    private func findings(threads: Int = 2) throws -> [VerifyReport.Finding] {
        try Verification(directory: directory.path, in: LocalFiles()).run(threads: threads).findings
    }

    private func change(_ name: String, _ change: (inout Data) -> Void) throws {
        let url = URL(fileURLWithPath: "\(directory.path)/\(name)")
        var data = try Data(contentsOf: url)
        change(&data)
        try data.write(to: url)
    }

    @Test func findsNothingWrongWithWhatWasWritten() throws {
        let report = try Verification(directory: directory.path, in: LocalFiles()).run(threads: 3)
        #expect(report.findings == [])
        #expect(report.tensors == 3)
        #expect(report.checkedBytes > 2 * TreeDigest.blockSize)
    }

    /// An edited model card is another matter than a damaged weight, or than an index that leads elsewhere.
    @Test(arguments: [
        ("config.json", false), ("recipe.yml", false), (Checkpoint.indexName, true), (Manifest.fileName, true),
    ])
    func tellsWeightsFromOtherFiles(name: String, isOfWeights: Bool) throws {
        try change(name) { data in
            // A digest of the manifest, or the text.
            let place = data.range(of: Data(#""digest" : ""#.utf8), options: .backwards)?.upperBound ?? data.count - 2
            data[place] = data[place] == UInt8(ascii: "a") ? UInt8(ascii: "b") : UInt8(ascii: "a")
        }
        let found = try findings().filter { $0.file == name }
        #expect(!found.isEmpty && found.allSatisfy { $0.isOfWeights == isOfWeights }, "\(found)")
        let part = layout.parts[1]
        try change(part.fileName) { $0[part.fileSize - 1] ^= 1 }
        #expect(try findings().first { $0.file == part.fileName }?.isOfWeights == true)
    }

    /// Vectors and small matrices of a store lie in a file of their own.
    @Test(arguments: [("a.packed", true), ("task-vectors.json", true), ("a.packed.txt", false), ("README.md", false)])
    func filesOfAStoreAreItsWeights(name: String, isOfWeights: Bool) {
        #expect(VerifyReport.Finding(kind: .contents, file: name, message: "").isOfWeights == isOfWeights)
    }

    @Test func findsWhatJoinedAFolder() throws {
        try directory.write("", to: "1_Pooling/x.safetensors")
        #expect(try findings().map { "\($0.kind) \($0.file)" } == ["extra 1_Pooling/x.safetensors"])
    }

    /// One flipped bit anywhere: each lands in a tensor and block, or in a header, and is named there.
    @Test(arguments: [
        (0, Optional("big"), Optional(0)), (1, "big", 0), (TreeDigest.blockSize - 1, "big", 0), (TreeDigest.blockSize, "big", 1),
        (2 * TreeDigest.blockSize, "big", 2), (2 * TreeDigest.blockSize + 999, "big", 2),
    ])
    func namesTheBlockOfAFlippedBit(position: Int, tensor: String?, block: Int?) throws {
        let part = layout.parts[0]
        try change(part.fileName) { $0[part.header.count + position] ^= 0x10 }
        let found = try findings().filter { $0.file == part.fileName }
        #expect(found.map(\.kind) == [.block])
        #expect(found.first?.tensor == tensor)
        #expect(found.first?.block == block)
    }

    @Test func everyBitOfASmallPartCounts() throws {
        let part = layout.parts[1]
        var random = SplitMix(seed: 7)
        for _ in 0..<60 {
            let byte = Int.random(in: 0..<part.fileSize, using: &random), bit = UInt8(1) << Int.random(in: 0..<8, using: &random)
            try change(part.fileName) { $0[byte] ^= bit }
            let found = try findings().filter { $0.file == part.fileName }
            #expect(found.count == 1, "byte \(byte)")
            #expect(found.first?.kind == (byte < part.header.count ? .header : .block))
            #expect(found.first?.tensor == (byte < part.header.count ? nil : "small"))
            try change(part.fileName) { $0[byte] ^= bit }
        }
        #expect(try findings() == [])
    }

    @Test func findsAMissingPart() throws {
        try FileManager.default.removeItem(atPath: "\(directory.path)/\(layout.parts[0].fileName)")
        let found = try findings()
        #expect(found.map(\.kind) == [.missing])
        #expect(found.map(\.file) == [layout.parts[0].fileName])
    }

    @Test func findsAnExtraPart() throws {
        try directory.write("x", to: "model-00003-of-00003.safetensors")
        #expect(try findings().map { "\($0.kind) \($0.file)" } == ["extra model-00003-of-00003.safetensors"])
    }

    @Test func findsATruncatedPart() throws {
        try change(layout.parts[1].fileName) { $0.removeLast(5) }
        let found = try findings()
        #expect(found.map(\.kind) == [.size])
        #expect(found.first?.message.contains("the manifest says \(layout.parts[1].fileSize)") == true)
    }

    @Test(arguments: Array(sidecars.keys) + [Checkpoint.indexName])
    func findsAnEditedCompanion(name: String) throws {
        try change(name) { $0[2] ^= 1 }
        #expect(try findings().contains { $0.kind == .contents && $0.file == name })
    }

    @Test func findsAnEditedManifest() throws {
        let other = String(repeating: "0", count: 64)
        let text = try String(contentsOfFile: "\(directory.path)/\(Manifest.fileName)", encoding: .utf8)
        let manifest = try Manifest.read(directory: directory.path, in: LocalFiles())
        let digest = manifest.parts[1].tensors[0].blocks.first ?? manifest.parts[1].tensors[1].blocks[0]
        try directory.write(text.replacingOccurrences(of: digest.hex, with: other), to: Manifest.fileName)
        #expect(try findings().contains { $0.file == Manifest.fileName && $0.message.contains("inconsistent") })
    }

    @Test func findsSumsThatContradictTheManifest() throws {
        let digest = try Digest.sha256(of: Array(Self.sidecars["config.json", default: ""].utf8))
        try change(SHA256Sums.fileName) {
            $0 = Data(
                String(decoding: $0, as: UTF8.self).replacingOccurrences(of: digest.hex, with: String(repeating: "1", count: 64))
                    .utf8)
        }
        #expect(try findings().map(\.file) == [SHA256Sums.fileName])
    }

    /// The directory may lie in any store of files.
    @Test func readsWhatTheStoreHas() throws {
        let local = LocalFiles(), files = MemoryFiles()
        for name in try local.below(directory.path) {
            files.write(try local.read("\(directory.path)/\(name)", maxBytes: .max), to: "/out/\(name)")
        }
        func findings() throws -> [VerifyReport.Finding] {
            try Verification(directory: "/out", in: files).run(threads: 2).findings
        }
        #expect(try findings() == [])
        let part = layout.parts[1], path = "/out/\(part.fileName)"
        files.add(.failing(at: part.header.count, TesseraError(.io, "cannot read the file", file: path)), to: path)
        #expect(try findings().map { "\($0.kind) \($0.message)" } == ["unreadable cannot read the file"])
        files.remove("/out/config.json")
        #expect(try findings().map(\.kind) == [.unreadable, .missing])
    }

    @Test func sumsAreWhatSHA256SumChecks() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/sha256sum")
        process.arguments = ["-c", "--quiet", SHA256Sums.fileName]
        process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
    }

    @Test func refusesADirectoryWithoutAManifest() throws {
        let empty = try TemporaryDirectory()
        #expect(
            #expect(throws: TesseraError.self) { try Verification(directory: empty.path, in: LocalFiles()) }?.code
                == .inputMissing)
        try empty.write("{}", to: Manifest.fileName)
        #expect(
            #expect(throws: TesseraError.self) { try Verification(directory: empty.path, in: LocalFiles()) }?.code == .badData)
        try empty.write(#"{"format": "tessera.manifest", "version": 99}"#, to: Manifest.fileName)
        #expect(
            #expect(throws: TesseraError.self) { try Verification(directory: empty.path, in: LocalFiles()) }?.problem.contains(
                "version 99") == true
        )
    }
}
