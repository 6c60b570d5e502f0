import TestSupport
import Testing

/// `Cluster/lab` for a few seconds, on a family of a megabyte.
@Suite struct LabTests {
    private static let faults = "kill,flip,cut,duplicate,reorder,replay,lose,reset,hold,delay,kill-coordinator,swizzle"
    /// What the lab answers where no namespaces can be made.
    private static let isSkipped: Int32 = 77

    @Test func hostsThatFailLoseNothing() async throws {
        let directory = try TemporaryDirectory()
        for (seed, name) in ["base", "tune-0", "tune-1"].enumerated() {
            var random = SplitMix(seed: UInt64(seed))
            let tensors = (0..<16).map { number in
                let values = (0..<1 << 14).map { _ in Float.random(in: -1...1, using: &random) }
                return ("layers.\(number).weight", TestTensor(values, shape: [1 << 7, 1 << 7]))
            }
            try TestTensor.writeCheckpoint("\(directory.path)/\(name)", tensors)
        }
        let lab = try RunningTessera(
            [
                "chaos", directory.path, "--tessera", Tessera.path, "--minutes", "0.1", "--seed", "5", "--every", "0.3",
                "--longest", "3", "--only", Self.faults, "--patience", "600",
            ], executable: "\(Repository.root)/Cluster/lab/lab")
        let code = await lab.exitCode()
        try #require(code == 0 || code == Self.isSkipped, "\(lab.output)\(lab.errors)")
        #expect(code == Self.isSkipped || lab.output.contains("jobs; on the links"))
    }
}
