import Core
import Foundation

/// Files in memory: those of `Tests/Fuzzing/Models`, and those of an input.
struct Folder: InputFiles {
    private var files: [String: [UInt8]] = [:]

    /// The models, under `/models`.
    static let models: Folder = {
        var folder = Folder()
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path + "/Models"
        guard let names = try? Directory(root).filesBelow() else { preconditionFailure("\(root) cannot be read") }
        for name in names { folder.files["/models/\(name)"] = try? LocalFiles().read("\(root)/\(name)", maxBytes: 1 << 20) }
        return folder
    }()

    /// Empty contents are no file.
    mutating func write(_ bytes: [UInt8], to path: String) { files[path] = bytes.isEmpty ? nil : bytes }

    func list(_ directory: String) throws(TesseraError) -> [String] {
        let prefix = FilePath.join(directory, "")
        let names = files.keys.filter { $0.utf8.starts(with: prefix.utf8) }.compactMap {
            FilePath.components(of: String(Substring($0.utf8.dropFirst(prefix.utf8.count)))).first
        }
        guard !names.isEmpty else { throw TesseraError(.inputMissing, "no such directory", file: directory) }
        return Set(names).sorted { $0.precedesInBytes($1) }
    }

    func status(of path: String) throws(TesseraError) -> FileStatus? {
        guard let path = try canonicalPath(of: path) else { return nil }
        return FileStatus(kind: files[path] == nil ? .directory : .file, size: files[path]?.count ?? 0, identity: path)
    }

    func canonicalPath(of path: String) throws(TesseraError) -> String? {
        var parts: [String] = []
        for part in FilePath.components(of: path) where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        let whole = "/" + parts.joined(separator: "/"), prefix = FilePath.join(whole, "")
        return files[whole] != nil || files.keys.contains { $0.utf8.starts(with: prefix.utf8) } ? whole : nil
    }

    func open(_ path: String) throws(TesseraError) -> any ByteSource {
        guard let canonical = try canonicalPath(of: path), let bytes = files[canonical] else {
            throw TesseraError(.inputMissing, "no such file", file: path)
        }
        return Source(contents: bytes, identity: canonical)
    }

    private struct Source: ByteSource {
        let contents: [UInt8]
        let identity: String
        var size: Int { contents.count }

        func withBytes<Result>(
            _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
        ) throws -> Result {
            try check(range, scratch: scratch, file: identity)
            // Through the scratch memory, so that a reader that gave too little of it is noticed.
            contents.withUnsafeBytes { scratch.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[range])) }
            return try body(UnsafeRawBufferPointer(rebasing: scratch[..<range.count]))
        }

        func checkUnchanged() throws(TesseraError) {}
        func prefetch(_ range: Range<Int>) {}
        func release(_ range: Range<Int>) {}
    }
}
