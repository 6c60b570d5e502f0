import Core
import Synchronization
import Work

/// Reads ranges of input files for workers that do not have them.
struct FetchSource: Sendable {
    private let roots: Roots
    private let opened = OpenedFiles()

    private final class OpenedFiles: Sendable {
        let files = Mutex<[InputFile: ReadableFile]>([:])
    }

    /// Open files at most; the rest are opened again when they are asked for.
    private static let openLimit = 256

    init(roots: Roots) { self.roots = roots }

    /// - Throws: `inputMissing` when the coordinator has no such file either.
    func read(_ file: InputFile, _ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        return try open(file).bytes(range)
    }

    private func open(_ file: InputFile) throws(TesseraError) -> ReadableFile {
        if let readable = opened.files.withLock({ $0[file] }) { return readable }
        guard let path = try roots.find(file) else {
            throw TesseraError(.inputMissing, "the file is under none of the coordinator's roots", file: file.path)
        }
        let readable = try ReadableFile(path)
        guard file.version.isEmpty || readable.version == file.version else {
            throw TesseraError(
                .badData, "the file was changed or replaced after the job was planned", file: file.path,
                advice: "make sure that nobody writes the inputs during a merge, and submit the job again")
        }
        opened.files.withLock { files in
            if files.count >= Self.openLimit { files.removeAll() }
            files[file] = readable
        }
        return readable
    }
}
