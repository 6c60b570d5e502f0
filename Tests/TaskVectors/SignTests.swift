import Core
import Foundation
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// BitDelta and per-axis signs (arXiv 2402.10193, 2512.19720).
@Suite struct SignTests {
    /// What Tests/Golden/signs.py makes of the papers. Numbers are bit patterns.
    private struct Golden: Decodable {
        let shape: [Int]
        let delta: [UInt32]
        let codes: [UInt8]
        let scales: [String: [UInt32]]
        let errors: [String: Double]

        static func all() throws -> [Golden] {
            let file = URL(fileURLWithPath: "\(Repository.root)/Tests/Golden/signs.json")
            return try JSONDecoder().decode([Golden].self, from: Data(contentsOf: file))
        }

        var vector: [Float] { delta.map { Float(bitPattern: $0) } }
    }

    private static let scalings = [SignScaling.tensor, .row, .column]

    @Test(arguments: scalings)
    func areThoseOfThePapers(scaling: SignScaling) throws {
        for golden in try Golden.all() {
            let (statistics, formats) = try EncodingBench(vectors: [golden.vector, golden.vector], shape: golden.shape)
                .run(.quantize(Quantizer(tasks: [.signs(scaling), .signs(scaling)])))
            let scales = try #require(golden.scales[scaling.rawValue]), error = try #require(golden.errors[scaling.rawValue])
            for (stored, found) in zip(formats, try statistics.vectors) {
                #expect(stored.parts[.codes] == golden.codes)
                let bytes = scales.flatMap { word in
                    withUnsafeBytes(of: word.littleEndian) { scaling == .tensor ? Array($0) : Array($0.suffix(2)) }
                }
                #expect(stored.parts[.scales] == bytes, "\(golden.shape)")
                #expect((found.error - error).magnitude <= 1e-6 * error, "\(found.error) in place of \(error)")
            }
        }
    }

    /// What an axis is chosen by, before anything is stored.
    @Test func errorsAreKnownBefore() throws {
        for golden in try Golden.all() {
            let formats = Self.scalings.map { StorageFormat.signs($0) }
            let bench = EncodingBench(vectors: [golden.vector], shape: golden.shape)
            let statistics = try bench.run(.measureGrids(GridMeasurement(shared: [.zero], formats: formats))).statistics
            guard case .grids(let found) = statistics else { throw TesseraError(.internal, "nothing was measured") }
            for (error, scaling) in zip(found[0].errors[0], Self.scalings) {
                let expected = try #require(golden.errors[scaling.rawValue])
                #expect((error - expected).magnitude <= 1e-6 * expected, "\(scaling): \(error) in place of \(expected)")
            }
        }
    }

    @Test(arguments: scalings)
    func whatDidNotChangeIsZero(scaling: SignScaling) throws {
        let bench = EncodingBench(vectors: [[Float](repeating: 0, count: 48)], shape: [6, 8])
        #expect(try bench.run(.quantize(Quantizer(tasks: [.signs(scaling)]))).formats[0].decoded().allSatisfy { $0 == 0 })
    }

    @Test(arguments: scalings, [Float.nan, .infinity])
    func refusesWhatIsNotFinite(scaling: SignScaling, value: Float) {
        let bench = EncodingBench(vectors: [[1, 2, value, 4]], shape: [2, 2])
        for encoding in [
            Encoding.quantize(Quantizer(tasks: [.signs(scaling)])),
            .measureGrids(GridMeasurement(shared: [.zero], formats: [.signs(scaling)])),
        ] {
            #expect { try bench.run(encoding) } throws: { ($0 as? TesseraError)?.code == .badData }
        }
    }
}
