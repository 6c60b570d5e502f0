package import Core

/// A small output file beside the weights.
package struct SidecarFile: Sendable, Hashable {
    private enum Source: Sendable, Hashable {
        case bytes([UInt8])
        case copy(of: String)
    }

    package let name: String
    private let source: Source

    /// The size limit in bytes. Tokenizers reach tens of megabytes.
    private static let byteLimit = 512 << 20

    package init(name: String, bytes: [UInt8]) {
        self.name = name
        source = .bytes(bytes)
    }

    /// - Parameter path: the file to copy, read when the job is published.
    package init(name: String, copyOf path: String) {
        self.name = name
        source = .copy(of: path)
    }

    /// `nil` for a copy.
    package var byteCount: Int? {
        if case .bytes(let bytes) = source { bytes.count } else { nil }
    }

    /// The path of the original; `nil` for a file made from bytes.
    package var copiedFrom: String? {
        if case .copy(let path) = source { path } else { nil }
    }

    /// - Parameter files: where a copy is read from.
    /// - Throws: what reading throws.
    package func contents(from files: any InputFiles) throws(TesseraError) -> [UInt8] {
        switch source {
        case .bytes(let bytes): bytes
        case .copy(let path): try files.read(path, maxBytes: Self.byteLimit)
        }
    }
}
