import Foundation
import FuzzTargets
import TestSupport
import Testing

/// The targets of fuzzing as ordinary tests: every seed, every input that once crashed, and some changes of each. A trap ends
/// the run of all tests; `Tests/Fuzzing/run` tries millions.
@Suite struct SeedTests {
    private static func inputs(_ folder: String, _ target: FuzzTarget) -> [[UInt8]] {
        let path = "\(Repository.root)/Tests/Fuzzing/\(folder)/\(target.name)"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? []
        return names.compactMap { try? Array(Data(contentsOf: URL(fileURLWithPath: "\(path)/\($0)"))) }
    }

    @Test(arguments: FuzzTarget.all.map(\.name))
    func seedsCrashesAndTheirNeighbours(name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        let seeds = Self.inputs("Seeds", target), inputs = seeds + Self.inputs("Crashes", target)
        #expect(!seeds.isEmpty)
        for input in inputs { target.run(input) }
        var random = SplitMix(seed: 6)
        for _ in 0..<200 {
            guard var input = inputs.randomElement(using: &random) else { return }
            for _ in 0..<Int.random(in: 1...4, using: &random) { Self.change(&input, using: &random) }
            target.run(input)
        }
    }

    private static func change(_ input: inout [UInt8], using random: inout SplitMix) {
        guard !input.isEmpty else { return }
        let place = Int.random(in: input.indices, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: input[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: input.removeSubrange(place...min(place + .random(in: 0..<16, using: &random), input.count - 1))
        case 2:
            let texts = ["99999999999999999999", "{", "[", "-1", "1e999", "\u{0}", "\u{e9}", ",", ":"]
            input.insert(contentsOf: texts[Int.random(in: texts.indices, using: &random)].utf8, at: place)
        default: input.insert(contentsOf: input[Int.random(in: 0...place, using: &random)...place], at: place)
        }
    }
}
