import Core
import Foundation
import TestSupport
import Testing

/// Hosts whose copies of the inputs are not what they should be.
@Suite(.serialized) struct InputCopyTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func writeModel(_ path: String) throws {
        let layers = (0..<8).map { ("layers.\($0).a", TestTensor((0..<1000).map { Float($0) })) }
        try TestTensor.writeCheckpoint("\(directory.path)/\(path)/model", layers)
    }

    /// One worker's copy was cut short. The job ends with the right bytes all the same, and the worker says what it did.
    @Test func aTruncatedCopyCostsNoJob() async throws {
        for host in ["coordinator", "good", "bad"] { try writeModel(host) }
        let copy = URL(fileURLWithPath: "\(directory.path)/bad/model/model.safetensors")
        try Data(try Data(contentsOf: copy).dropLast(100)).write(to: copy)
        let cluster = try await Cluster(coordinator: ["--root", "\(directory.path)/coordinator"])
        let bad = try cluster.addWorker(["--root", "\(directory.path)/bad"])
        try await cluster.waitForWorkers(1)
        let recipe = "merge_method: linear\nmodels:\n- model: model\n  parameters: {weight: 1}\n"
        try directory.write(recipe, to: "recipe.yml")
        let outcome = try await cluster.submit("recipe.yml", "out", ["--wait", "--shard-size", "4KiB"], in: directory.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        try cluster.addWorker(["--root", "\(directory.path)/good"])
        try await cluster.waitForWorkers(2)
        let second = try await cluster.submit("recipe.yml", "out2", ["--wait", "--shard-size", "4KiB"], in: directory.path)
        #expect(second.exitCode == 0, "\(second.errors)")
        let expected = try TestTensor.read("\(directory.path)/good/model")
        for output in ["out", "out2"] { #expect(try TestTensor.read("\(directory.path)/\(output)") == expected) }
        #expect(bad.errors.contains("fetching an input from the coordinator instead"), "\(bad.errors)")
    }

    /// One worker has another fine-tune of the same shapes at the same place: nothing of it goes into the output. With `full`
    /// even where no sample shows it.
    @Test(arguments: ["sampled", "full"])
    func aCopyWithOtherValuesIsRefused(inputs: String) async throws {
        let isFull = inputs == "full"
        for (host, scale) in [("coordinator", Float(1)), ("bad", 2)] {
            let layers = (0..<8).map { layer in
                ("layers.\(layer).a", TestTensor((0..<100_000).map { Float($0) * (isFull && layer > 0 ? 1 : scale) }))
            }
            try TestTensor.writeCheckpoint("\(directory.path)/\(host)/model", layers)
        }
        if isFull { try spoil("bad", like: "coordinator") }
        let cluster = try await Cluster(coordinator: ["--root", "\(directory.path)/coordinator"])
        let bad = try cluster.addWorker(["--root", "\(directory.path)/bad"])
        try await cluster.waitForWorkers(1)
        try directory.write("merge_method: linear\nmodels:\n- model: model\n  parameters: {weight: 1}\n", to: "recipe.yml")
        let arguments = ["--wait", "--shard-size", "400KB", "--inputs", inputs]
        let outcome = try await cluster.submit("recipe.yml", "out", arguments, in: directory.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try TestTensor.read("\(directory.path)/out") == TestTensor.read("\(directory.path)/coordinator/model"))
        let copy = "\(directory.path)/bad/model/model.safetensors"
        #expect(
            bad.errors.contains("\(copy): the copy on worker-1 is not the plan's file: has the size and header"), "\(bad.errors)")
        #expect(bad.errors.contains(isFull ? "SHA-256 of it is" : "a sample of it is"), "\(bad.errors)")
        // The coordinator names the worker, once, and so does the status.
        let words = "the copy on worker-1 is not the plan's file"
        let said = cluster.coordinator.errors.split(separator: "\n").filter { $0.contains(words) }
        #expect(said.count == 1 && said[0].contains("worker=worker-1"), "\(cluster.coordinator.errors)")
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("worker-1 (127.0.0.1) fetches an input: \(copy): \(words)"), "\(status.output)")
        // What is known of the whole files stays beside them.
        let lists = ["coordinator", "bad"].map {
            FileManager.default.fileExists(atPath: "\(directory.path)/\($0)/.tessera-digests.json")
        }
        #expect(lists == [isFull, isFull])
        let manifest = try String(contentsOfFile: "\(directory.path)/out/tessera.manifest.json", encoding: .utf8)
        #expect(manifest.contains("\"sample\"") && manifest.contains("\"sha256\"") == isFull)
    }

    /// Makes one host's file that of another, but for a byte that is in no sample.
    private func spoil(_ host: String, like other: String) throws {
        var bytes = try Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/\(other)/model/model.safetensors"))
        let ranges = ContentSample.ranges(size: bytes.count)
        let hole = try #require(zip(ranges, ranges.dropFirst()).first { $0.upperBound < $1.lowerBound }).0.upperBound
        bytes[hole] ^= 0x40
        try bytes.write(to: URL(fileURLWithPath: "\(directory.path)/\(host)/model/model.safetensors"))
    }
}
