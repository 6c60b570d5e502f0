package import Core
import FoundationEssentials

/// A value as JSON for files of an output: the same value gives the same bytes.
///
/// - Throws: `internal` for a value that JSON cannot hold.
package func stableJSON(_ value: some Encodable) throws(TesseraError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    do {
        return Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
    } catch {
        throw TesseraError(.internal, "a \(type(of: value)) cannot be written as JSON: \(error)")
    }
}
