import Core
import Synchronization
package import Work

/// Reads ranges of input files for workers that do not have them.
package final class FetchSource: Sendable {
    private let roots: Roots
    private let opened = Mutex<[InputFile: any ByteSource]>([:])

    /// Open files at most; further ones are opened again for each request.
    private static let openLimit = 256

    package init(roots: Roots) { self.roots = roots }

    /// - Throws: `inputMissing` when the coordinator no longer has the file; `badData` when it was changed after the job was
    ///   planned, which no worker can mend.
    func read(_ file: InputFile, _ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        let source = try open(file)
        do throws(TesseraError) {
            let bytes = try source.bytes(range)
            try source.checkUnchanged()
            return bytes
        } catch {
            opened.withLock { $0[file] = nil }
            throw changed(file, because: error)
        }
    }

    /// - Throws: as `read`.
    func open(_ file: InputFile) throws(TesseraError) -> any ByteSource {
        if let source = opened.withLock({ $0[file] }) { return source }
        let path: String?
        do throws(TesseraError) {
            path = try roots.find(file)
        } catch {
            throw changed(file, because: error)
        }
        guard let path else {
            throw TesseraError(
                .inputMissing,
                "the file is under none of the coordinator's roots \(roots.directories.joined(separator: ", "))", file: file.path)
        }
        let source = try roots.files.open(path)
        guard file.version.isEmpty || source.identity == file.version else { throw changed(file) }
        opened.withLock { opened in
            if opened.count >= Self.openLimit { opened.removeAll() }
            opened[file] = source
        }
        return source
    }

    /// - Parameter cause: what is wrong with the file now; errors that may pass stay as they are.
    /// - Returns: an error that names the file as it is found on this host: there may be several roots.
    private func changed(_ file: InputFile, because cause: TesseraError? = nil) -> TesseraError {
        if let cause, cause.code != .inputMissing, cause.code != .badData { return cause }
        return TesseraError(
            .badData, "the file was changed or replaced after the job was planned", file: roots.locate(file.path) ?? file.path,
            advice: "make sure that nobody writes the inputs during a merge, and submit the job again")
    }
}
