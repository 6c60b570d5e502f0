import Checkpoints
import Core
import Foundation
import TaskVectors
import TestSupport
import Testing

/// `task-vectors.json` of both versions.
@Suite struct StoreIndexTests {
    private static let digest = try? Digest.sha256(of: [1])

    private func index(_ formats: [StorageFormat?], packed: StoreIndex.Packed? = nil, seed: UInt64? = nil) throws -> StoreIndex {
        let digest = try #require(Self.digest)
        return StoreIndex(
            base: .init(model: "base", parts: [], digest: digest),
            tensors: formats.indices.map {
                .init(
                    name: "t\($0)", dtype: .f32, shape: [5000], base: .init(digest: digest, sample: digest),
                    measured: seed.map { _ in .init(error: 0.123456, bias: -0.0001239, loss: 1234.5) })
            }, shared: nil,
            tasks: ["one", "two"].map { name in
                StoreIndex.Task(
                    name: name, model: name, parts: [], scheme: "words", files: ["\(name).safetensors"], packed: packed,
                    seed: seed,
                    formats: formats, factor: 1, error: 1, energy: 2, bias: seed.map { _ in 0.5 }, predicted: nil, lost: [])
            })
    }

    private func thinned(_ every: Int) -> StorageFormat { .thinned(ThinnedGrid(bits: 2, group: 64, every: every)) }

    private func json(_ index: StoreIndex) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(index.encoded())) as? [String: Any])
    }

    /// What older builds can read is written as they know it.
    @Test func theFirstVersionIsAsItWas() throws {
        let index = try index([.zero, .dense(.grid(Grid(bits: 3, granularity: .group(64)))), nil]), json = try json(index)
        #expect(json["version"] as? Int == 1 && json["forms"] == nil)
        let task = try #require((json["tasks"] as? [[String: Any]])?.first)
        #expect(Set(task.keys) == ["name", "model", "parts", "scheme", "files", "factor", "error", "energy", "lost", "forms"])
        #expect((task["forms"] as? [Any])?.count == 3 && (task["forms"] as? [[String: Any]]) == nil)
        #expect(try JSONDecoder().decode(StoreIndex.self, from: Data(index.encoded())) == index)
    }

    /// Formats are listed once, without the keys, which follow from the seed and the names.
    @Test func theSecondListsItsFormatsOnce() throws {
        let formats = [thinned(8), .zero, thinned(8), nil, thinned(16)]
        let packed = StoreIndex.Packed(file: "one.packed", limit: 100)
        let plain = try index(formats, packed: packed, seed: .max), json = try json(plain)
        #expect(json["version"] as? Int == 2 && (json["forms"] as? [[String: Any]])?.count == 3)
        let read = try JSONDecoder().decode(StoreIndex.self, from: Data(plain.encoded()))
        let task = try #require(read.tasks.last), key = try ThinnedGrid.key(seed: .max, task: "two", tensor: "t2")
        #expect(task.formats[2] == .thinned(ThinnedGrid(bits: 2, group: 64, every: 8, key: key)) && task.packed == packed)
        #expect(task.formats.map { $0?.unkeyed } == formats && task.bias == 0.5)
        #expect(try read.encoded() == plain.encoded())
        let measured = try #require(read.tensors[0].measured)
        #expect(measured.error == 0.123 && measured.bias == -0.000124 && measured.loss == 1235)
    }

    @Test(arguments: [
        (#""forms":[0,1,0,null,2]"#, #""forms":[0,1,0,null,3]"#), (#","seed":7"#, ""), (#""every":8"#, #""every":9"#),
        (#""every":16"#, #""every":256"#), (#""group":64"#, #""group":48"#), (#""bits":2"#, #""bits":9"#),
    ])
    func aDamagedSecondVersionIsRefused(good: String, bad: String) throws {
        let index = try index([thinned(8), .zero, thinned(8), nil, thinned(16)], seed: 7)
        let text = String(decoding: try index.encoded(), as: UTF8.self)
        try #require(text.contains(good))
        let damaged = text.replacingOccurrences(of: good, with: bad)
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(StoreIndex.self, from: Data(damaged.utf8)) }
    }
}
