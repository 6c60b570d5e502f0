/// A file of an output that holds tensors, as it is before the first of them arrives.
package struct OutputPart: Sendable, Hashable {
    /// The file's name in the output; may lead through folders.
    package let name: String
    /// Bytes of the whole file.
    package let size: Int
    /// The first bytes of the file.
    package let header: [UInt8]

    package init(name: String, size: Int, header: [UInt8]) {
        self.name = name
        self.size = size
        self.header = header
    }
}

/// A file of an earlier output that becomes a file of a new output unchanged.
package struct AdoptedFile: Sendable {
    /// Where the file lies, and the store that has it.
    package let path: String
    package let files: any InputFiles
    /// Bytes that the file must have.
    package let size: Int
    /// The file's name in the new output.
    package let name: String

    package init(path: String, in files: any InputFiles, size: Int, name: String) {
        self.path = path
        self.files = files
        self.size = size
        self.name = name
    }

    /// Calls `body` with the file's bytes, piece by piece, each with its offset.
    ///
    /// - Throws: `badData` for a file of another size, and what reading and `body` throw.
    package func forEachPiece(_ body: ([UInt8], _ offset: Int) throws(TesseraError) -> Void) throws(TesseraError) {
        let source = try files.open(path)
        try check(size: source.size)
        for start in stride(from: 0, to: size, by: Self.pieceBytes) {
            try body(source.bytes(start..<min(size, start + Self.pieceBytes)), start)
        }
        try source.checkUnchanged()
    }

    private static let pieceBytes = 8 << 20

    func check(size found: Int?) throws(TesseraError) {
        guard let found else { throw TesseraError(.inputMissing, "no such file", file: path) }
        guard found == size else {
            throw TesseraError(
                .badData, "has \(found) bytes, but the manifest beside it says \(size)", file: path,
                advice: "'tessera verify' shows what else is damaged")
        }
    }
}

/// Where workers that see the output's file system find an unfinished output.
package struct OutputLocation: Sendable, Hashable {
    /// The directory's absolute path on the coordinator's host.
    package let directory: String
    /// The directory's path below the store's root; `nil` for a store without a root.
    package let relative: String?
    /// `Directory.device`; `nil` for a store that is no file system of this host.
    package let device: UInt64?

    package init(directory: String, relative: String?, device: UInt64? = nil) {
        self.directory = directory
        self.relative = relative
        self.device = device
    }
}

/// Where a job writes its output.
///
/// The coordinator knows outputs by this protocol and `OutputTransaction` alone. `LocalOutputStore` is the file system of this
/// host.
package protocol OutputStore: Sendable {
    /// The store's own name for an output: absolute, and the same for every way to write the path.
    ///
    /// - Throws: `cannotCreate` for a path that cannot name an output, `notAllowed` for one outside the store's root.
    func resolve(_ path: String, workingDirectory: String) throws(TesseraError) -> String

    /// Begins an output of which nothing is visible under its name until it is committed.
    ///
    /// - Parameters:
    ///   - output: a name that `resolve` returned.
    ///   - job: tells unfinished outputs of the same name apart.
    ///   - overwrite: whether an existing output that Tessera wrote may be replaced.
    /// - Throws: `cannotCreate` when the output exists or cannot be created.
    func begin(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> any OutputTransaction

    /// Takes up an output that another process began for the same job; `reopen` comes next.
    ///
    /// - Returns: `nil` when there is no such unfinished output.
    /// - Throws: as `begin`.
    func resume(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> (any OutputTransaction)?

    /// Removes what a process that ended too soon left of a job's unfinished output.
    func discard(_ output: String, job: String)

    /// A small file of the finished output of that name; `nil` when there is none.
    func file(_ name: String, of output: String) throws(TesseraError) -> [UInt8]?
}

/// One output in the making. It ends with `commit` or `abort`.
///
/// Calls may come from several threads. `abort` wins over a `layOut` or `put` that runs at the same time or comes later: they
/// throw, and nothing of the output stays.
package protocol OutputTransaction: Sendable {
    /// `nil` when nobody but the coordinator can write to the output.
    var location: OutputLocation? { get }

    /// Creates the parts at their full size with their headers in place, so that a lack of space shows before the work begins.
    /// Parts are numbered in the order given. They replace those of an earlier layout.
    ///
    /// - Throws: `io` when there is too little space, `cancelled` after `abort`. No part stays, and they may be laid out again.
    func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError)

    /// As `layOut`, for parts that another process laid out. Their bytes stay; files that are neither parts nor adopted go.
    ///
    /// - Throws: `badData` for a part that has another size, `inputMissing` for one that is not there.
    func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError)

    /// Makes durable what has been written into the parts, and that they are there, still without a name for the output.
    ///
    /// After an error nobody knows which bytes are lost of those written since the last call that succeeded: they have to be
    /// written again, and it is not enough to call this again.
    ///
    /// - Throws: `io` when the store cannot, and as `check`.
    func sync(_ parts: Set<Int>) throws(TesseraError)

    /// Writes bytes into a part. Blocks may come in any order, and more than once.
    ///
    /// On return the bytes can be read by everybody who sees the store; they are durable only after `sync` or `commit`.
    ///
    /// - Parameter offset: bytes from the beginning of the part.
    func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError)

    /// Whether the unfinished output is where it was begun, and these parts are in it.
    ///
    /// - Throws: `cannotCreate` when others have removed or replaced something.
    func check(_ parts: Set<Int>) throws(TesseraError)

    /// Writes something small beside the parts, makes it durable and removes it: whether the store takes bytes again.
    func probe() throws(TesseraError)

    /// Writes a small file beside the parts.
    func putFile(_ name: String, _ bytes: [UInt8]) throws(TesseraError)

    /// The names of all files, sorted by their bytes.
    func fileNames() throws(TesseraError) -> [String]

    /// Opens one of the output's files for reading.
    func open(_ name: String) throws(TesseraError) -> any ByteSource

    /// Makes everything durable and gives the output its name: from then on the output exists, whole. May be called again after
    /// an error, if all parts were made durable with `sync` before.
    ///
    /// - Throws: `cannotCreate` when another output has taken the name meanwhile.
    func commit() throws(TesseraError)

    /// Removes everything that was written. Does nothing after `commit`.
    func abort()
}
