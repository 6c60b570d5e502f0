import Foundation
import TestSupport

/// Two models of 24 layers, and a recipe over them: quick to write, and some seconds of one thread to merge.
enum LargeFamily {
    /// Bytes of a layer's only tensor.
    static let layerBytes = 4 << 20
    static let recipe = "merge_method: ties\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.5}\n"
    /// One thread, and a shard for each layer.
    static let arguments = ["--threads", "1", "--shard-size", "4MB"]

    /// Writes `a`, all zeros, `b`, and `r.yml`.
    static func write(to directory: TemporaryDirectory, below folder: String = "") throws {
        for (model, byte) in [("a", UInt8(0)), ("b", 0x3c)] {
            let path = "\(directory.path)/\(folder)\(model)"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            let entries = (0..<24).map { index in
                let offsets = "\(index * layerBytes),\((index + 1) * layerBytes)"
                return "\"layers.\(index).w\":{\"dtype\":\"F32\",\"shape\":[\(layerBytes / 4)],\"data_offsets\":[\(offsets)]}"
            }
            let header = Array("{\(entries.joined(separator: ","))}".utf8)
            let file = URL(fileURLWithPath: "\(path)/model.safetensors")
            try Data((0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header).write(to: file)
            let handle = try FileHandle(forWritingTo: file)
            try handle.seekToEnd()
            if byte == 0 {
                try handle.truncate(atOffset: UInt64(8 + header.count + 24 * layerBytes))
            } else {
                for _ in 0..<24 { try handle.write(contentsOf: Data(repeating: byte, count: layerBytes)) }
            }
            try handle.close()
        }
        try directory.write(recipe, to: "r.yml")
    }
}
