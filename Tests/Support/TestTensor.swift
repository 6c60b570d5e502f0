package import Core
import Foundation

/// A tensor in a test: its bytes, and what they mean. Reads and writes safetensors on its own, so that tests do not lean on the
/// code under test.
package struct TestTensor: Equatable {
    package let dtype: DType
    package let shape: [Int]
    package let bytes: [UInt8]

    package init(_ dtype: DType, _ shape: [Int], bytes: [UInt8]) {
        self.dtype = dtype
        self.shape = shape
        self.bytes = bytes
    }

    package init(_ values: [Float], shape: [Int]? = nil) {
        self.init(
            .f32, shape ?? [values.count], bytes: values.flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) })
    }

    /// Truncates, which is exact for values that fit bfloat16.
    package init(bfloat16 values: [Float], shape: [Int]? = nil) {
        self.init(
            .bf16, shape ?? [values.count],
            bytes: values.flatMap { Array(withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init)[2...]) })
    }

    /// Of values that fit a float8 type.
    package init(float8 values: [Float], _ dtype: DType, shape: [Int]? = nil) {
        self.init(dtype, shape ?? [values.count], bytes: values.map { Float8.code(of: Double($0), dtype) })
    }

    package var values: [Double] {
        switch dtype {
        case .f32: words(4).map { Double(Float(bitPattern: UInt32($0))) }
        case .bf16: words(2).map { Double(Float(bitPattern: UInt32($0) << 16)) }
        case .f64: words(8).map { Double(bitPattern: $0) }
        case .f8E4M3, .f8E5M2: bytes.map { Float8.value(of: $0, dtype) }
        default: words(dtype.bitWidth / 8).map(Double.init)
        }
    }

    private func words(_ width: Int) -> [UInt64] {
        stride(from: 0, to: bytes.count, by: width).map { start in
            bytes[start..<start + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    /// The tensors of a file, or of every safetensors file of a directory.
    package static func read(_ path: String) throws -> [String: TestTensor] {
        var isDirectory: ObjCBool = false
        _ = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
        let files =
            isDirectory.boolValue
            ? try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasSuffix(".safetensors") }.map {
                "\(path)/\($0)"
            } : [path]
        var tensors: [String: TestTensor] = [:]
        for file in files {
            let data = Array(try Data(contentsOf: URL(fileURLWithPath: file)))
            let length = data[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
            guard let header = try JSONSerialization.jsonObject(with: Data(data[8..<8 + length])) as? [String: Any] else {
                continue
            }
            for (name, value) in header where name != "__metadata__" {
                guard let entry = value as? [String: Any], let type = (entry["dtype"] as? String).flatMap(DType.init),
                    let shape = entry["shape"] as? [Int], let offsets = entry["data_offsets"] as? [Int]
                else { continue }
                tensors[name] = TestTensor(type, shape, bytes: Array(data[8 + length + offsets[0]..<8 + length + offsets[1]]))
            }
        }
        return tensors
    }

    /// One safetensors file, its tensors in the order given, unaligned if it so happens.
    package static func encode(_ tensors: [(String, TestTensor)]) -> [UInt8] {
        var entries: [String] = [], body: [UInt8] = []
        for (name, tensor) in tensors {
            let end = body.count + tensor.bytes.count
            entries.append(
                #""\#(name)":{"dtype":"\#(tensor.dtype.rawValue)","shape":\#(tensor.shape),"#
                    + #""data_offsets":[\#(body.count),\#(end)]}"#
            )
            body += tensor.bytes
        }
        let header = Array("{\(entries.joined(separator: ","))}".utf8)
        return (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header + body
    }

    /// A checkpoint directory of one part, with a config.
    package static func writeCheckpoint(_ directory: String, _ tensors: [(String, TestTensor)]) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data(encode(tensors)).write(to: URL(fileURLWithPath: "\(directory)/model.safetensors"))
        try Data(#"{"model_type": "test", "torch_dtype": "float32"}"#.utf8).write(
            to: URL(fileURLWithPath: "\(directory)/config.json"))
    }
}

/// Holds merged tensors against expected ones, by the rule of the golden results: `|a − e| ≤ rtol · max(|e|, rms(e))`.
package enum Comparison {
    /// - Parameter allowedShare: of the elements of each tensor that may miss the tolerance, where a threshold may cut ties
    ///   another way.
    /// - Returns: what differs, in words.
    package static func differences(
        _ actual: [String: TestTensor], from expected: [String: TestTensor], rtol: Double, allowedShare: Double = 0
    ) -> [String] {
        Set(expected.keys).union(actual.keys).sorted().compactMap { name in
            guard let wanted = expected[name] else { return "\(name): not expected" }
            guard let found = actual[name] else { return "\(name): missing" }
            guard wanted.dtype == found.dtype, wanted.shape == found.shape else {
                return "\(name): \(found.dtype) \(found.shape) in place of \(wanted.dtype) \(wanted.shape)"
            }
            let values = wanted.values
            let rms = (values.reduce(0) { $0 + $1 * $1 } / Double(max(1, values.count))).squareRoot()
            let misses = zip(found.values, values).count { actual, expected in
                !((actual - expected).magnitude <= rtol * max(expected.magnitude, rms))
            }
            return Double(misses) > allowedShare * Double(values.count)
                ? "\(name): \(misses) of \(values.count) values differ" : nil
        }
    }
}
