import ArgumentParser
import Core

/// A number of bytes on the command line: `2GiB`, `500MB`, `5G`, `1000`.
struct ByteCount: ExpressibleByArgument, CustomStringConvertible, Sendable {
    let bytes: Int

    init(_ bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        let number = argument.prefix { $0.isNumber || $0 == "." }
        let unit = argument.dropFirst(number.count).lowercased().trimmingPrefix(" ")
        let factors: [String: Double] = [
            "": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
            "kib": 1024, "mib": 1_048_576, "gib": 1_073_741_824, "tib": 1_099_511_627_776,
        ]
        guard let value = Double(number), let factor = factors[String(unit)], value >= 0, value * factor < 1e18 else {
            return nil
        }
        // mergekit's 1B is a billion; a part or a buffer of one byte is a misunderstanding.
        guard unit != "b" || value >= 1_000_000 else { return nil }
        bytes = Int(value * factor)
    }

    var description: String { defaultValueDescription }

    var defaultValueDescription: String { Quantity.bytes(bytes) }
}
