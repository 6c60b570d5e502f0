/// What an input store knows about a file without reading its contents.
package struct FileStatus: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        case file
        case directory
        case other
    }

    package let kind: Kind
    /// Bytes.
    package let size: Int
    /// Changes when the file is replaced or written to. Compared only with identities of the same store. What stands behind the
    /// last `-` changes with the contents; what stands before may also change when the store is mounted anew.
    package let identity: String

    package init(kind: Kind, size: Int, identity: String) {
        self.kind = kind
        self.size = size
        self.identity = identity
    }
}

/// Where a job reads its inputs: checkpoints, adapters, tokenizers, stores of task vectors.
///
/// Planner, worker and coordinator know input files by this protocol alone. `LocalFiles` is the file system of this host. Another
/// kind of store, such as an object store, is another conforming type in a file of its own.
package protocol InputFiles: Sendable {
    /// The names in a directory, sorted by their bytes.
    ///
    /// - Throws: `inputMissing`, `notAllowed` or `io`.
    func list(_ directory: String) throws(TesseraError) -> [String]

    /// Follows symbolic links.
    ///
    /// - Returns: `nil` when nothing is at `path`.
    func status(of path: String) throws(TesseraError) -> FileStatus?

    /// The path with every symbolic link resolved; `nil` when nothing is at `path`.
    func canonicalPath(of path: String) throws(TesseraError) -> String?

    /// The file, open, if this host's file system has it, so that it can be linked to instead of copied; `nil` for a store
    /// elsewhere.
    func localFile(_ path: String) throws(TesseraError) -> ReadableFile?

    /// The files of this store below some directories, given by their canonical paths: what opens a file must not be led out of
    /// them, also by those who can change links. A store without links has nothing to do.
    func confined(to directories: [String]) -> any InputFiles

    /// Opens a file for reading ranges of it, from several threads at once.
    ///
    /// - Throws: `inputMissing`, `notAllowed` or `io`; `badData` for what is not a regular file.
    func open(_ path: String) throws(TesseraError) -> any ByteSource
}

extension InputFiles {
    package func localFile(_ path: String) throws(TesseraError) -> ReadableFile? { nil }

    package func confined(to directories: [String]) -> any InputFiles { self }

    package func exists(_ path: String) throws(TesseraError) -> Bool { try status(of: path) != nil }

    package func isDirectory(_ path: String) throws(TesseraError) -> Bool { try status(of: path)?.kind == .directory }

    /// The paths of all files below a directory, relative to it, sorted by their bytes.
    ///
    /// - Throws: `badData` for folders nested more than 32 deep, as links in a circle are, and what listing throws.
    package func below(_ directory: String) throws(TesseraError) -> [String] {
        var found: [String] = [], next = [(folder: "", depth: 0)]
        while let (folder, depth) = next.popLast() {
            guard depth <= 32 else { throw TesseraError(.badData, "has folders nested more than 32 deep", file: directory) }
            for name in try list(folder.isEmpty ? directory : FilePath.join(directory, folder)) {
                let path = folder.isEmpty ? name : "\(folder)/\(name)"
                if try isDirectory(FilePath.join(directory, path)) {
                    next.append((path, depth + 1))
                } else {
                    found.append(path)
                }
            }
        }
        return found.sortedByBytes()
    }

    /// The whole file.
    ///
    /// - Throws: `badData` when it is larger than `maxBytes` or changes while it is read, and what `open` and reading throw.
    package func read(_ path: String, maxBytes: Int) throws(TesseraError) -> [UInt8] {
        let source = try open(path)
        guard source.size <= maxBytes else {
            throw TesseraError(
                .badData, "has \(source.size) bytes; the limit for this file is \(maxBytes)", file: path)
        }
        let bytes = try source.bytes(0..<source.size)
        try source.checkUnchanged()
        return bytes
    }
}

extension ByteSource {
    package func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        do {
            // A range beyond the end is refused before anything of its size is allocated.
            return try [UInt8](unsafeUninitializedCapacity: min(range.count, size)) { target, count in
                try withBytes(range, scratch: UnsafeMutableRawBufferPointer(target)) { bytes in
                    if let start = bytes.baseAddress, let first = target.baseAddress, start != UnsafeRawPointer(first) {
                        UnsafeMutableRawPointer(first).copyMemory(from: start, byteCount: bytes.count)
                    }
                }
                count = range.count
            }
        } catch {
            throw TesseraError(wrapping: error)
        }
    }
}
