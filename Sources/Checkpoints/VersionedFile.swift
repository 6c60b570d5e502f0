package import Core
import FoundationEssentials

/// A JSON file of Tessera that says what it is: `format` and `version` stand at its top level.
package protocol VersionedFile: Decodable {
    /// The value of `format`.
    static var formatName: String { get }
    /// The highest `version` that this build reads. The first is 1.
    static var formatVersion: Int { get }
    /// What messages call the file: "is not TITLE".
    static var title: String { get }
}

extension VersionedFile {
    /// The limits of such a file: its bytes, and the values in it, for each of which a decoder takes memory. A manifest of half a
    /// million tensors has less than half of both.
    private static var byteLimit: Int { 256 << 20 }
    private static var valueLimit: Int { 12 << 20 }

    /// Reads the file. What its numbers mean is for the caller to check.
    ///
    /// - Throws: `badData` if it is damaged, is another file, or has a newer format; what reading throws.
    package static func decode(_ path: String, in files: any InputFiles) throws(TesseraError) -> Self {
        let bytes = Data(try files.read(path, maxBytes: byteLimit))
        guard bytes.count(where: { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "[") || $0 == UInt8(ascii: "{") }) < valueLimit
        else { throw TesseraError(.badData, "has more than \(valueLimit) values, more than any \(title)", file: path) }
        guard let head = try? JSONDecoder().decode(VersionedHead.self, from: bytes), head.format == formatName, head.version > 0
        else { throw TesseraError(.badData, "is not \(title), or is damaged", file: path) }
        guard head.version <= formatVersion else {
            throw TesseraError(
                .badData, "has format version \(head.version); this build reads versions up to \(formatVersion)", file: path,
                advice: "use a newer version of Tessera")
        }
        do {
            return try JSONDecoder().decode(Self.self, from: bytes)
        } catch {
            throw TesseraError(.badData, "is damaged: \(error.decodingProblem)", file: path)
        }
    }
}

private struct VersionedHead: Decodable {
    let format: String
    let version: Int
}
