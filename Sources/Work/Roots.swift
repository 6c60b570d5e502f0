import Checkpoints
package import Core

/// The directories under which inputs may lie, and the store of files that has them.
///
/// In a cluster an input is known by its path relative to a root, because the same mount may sit elsewhere on each host.
package struct Roots: Sendable {
    /// Canonical absolute paths, in the order in which they are searched.
    package let directories: [String]
    /// Where inputs are read.
    package let files: any InputFiles

    /// Everything that this process may read: a single machine's root.
    package static let wholeMachine = Roots(everythingIn: LocalFiles())

    package init(everythingIn files: any InputFiles) { self.init(canonical: ["/"], in: files) }

    private init(canonical directories: [String], in files: any InputFiles) {
        self.directories = directories
        self.files = files
    }

    /// The same directories, read by way of another store.
    package func reading(_ files: any InputFiles) -> Roots { Roots(canonical: directories, in: files) }

    /// Files are opened below the directories, whatever links others put there.
    ///
    /// - Throws: `inputMissing` for a root that is not a directory, and what looking at it throws.
    package init(_ paths: [String], in files: any InputFiles = LocalFiles()) throws(TesseraError) {
        var directories: [String] = []
        for path in paths {
            guard let canonical = try files.canonicalPath(of: path), try files.isDirectory(canonical) else {
                throw TesseraError(.inputMissing, "the root is not a directory that can be read", file: path)
            }
            directories.append(canonical)
        }
        self.directories = directories
        self.files = files.confined(to: directories)
    }

    /// The path of `path` relative to the root it lies under, with every symbolic link resolved, so that no link leads out.
    ///
    /// A relative path is looked up in `workingDirectory` first, then under each root. Of a path outside the roots nobody learns
    /// whether something is there.
    ///
    /// - Throws: `inputMissing` when nothing is there, `notAllowed` when it lies outside the roots, and what looking for it
    ///   throws.
    package func relativePath(of path: String, workingDirectory: String?) throws(TesseraError) -> String {
        guard !path.utf8.contains(0) else {
            throw TesseraError(.inputMissing, "a path cannot have a zero byte", file: path.printable)
        }
        var candidates: [String] = []
        if FilePath.isAbsolute(path) {
            candidates = [path]
        } else {
            if let workingDirectory { candidates.append("\(workingDirectory)/\(path)") }
            candidates += directories.map { "\($0)/\(path)" }
        }
        var isOutside = false
        var failure: TesseraError?
        for candidate in candidates {
            let seemsOutside = stripRoot(FilePath.normalized(candidate)) == nil
            do throws(TesseraError) {
                let canonical = try files.canonicalPath(of: candidate)
                if let canonical, let relative = stripRoot(canonical) { return relative }
                isOutside = isOutside || canonical != nil || seemsOutside
            } catch {
                if seemsOutside { isOutside = true } else { failure = failure ?? error }
            }
        }
        if let failure { throw failure }
        if isOutside {
            throw TesseraError(
                .notAllowed, "the path lies under none of the roots \(directories.joined(separator: ", "))", file: path,
                advice: "start the coordinator with a --root above it")
        }
        throw TesseraError(.inputMissing, "no such file or directory", file: path)
    }

    /// The absolute path of `relative` under the first root that has it.
    package func locate(_ relative: String) -> String? {
        for directory in directories {
            guard let canonical = try? files.canonicalPath(of: FilePath.join(directory, relative)) else { continue }
            if stripRoot(canonical) != nil { return canonical }
        }
        return nil
    }

    /// The absolute path of an input file, checked to be the file that the plan means.
    ///
    /// - Returns: `nil` when no root has it.
    /// - Throws: `inputMissing` when a root has another file of that name.
    package func find(_ file: InputFile) throws(TesseraError) -> String? {
        guard let path = locate(file.path) else { return nil }
        let header = try SafetensorsHeader.read(path: path, in: files)
        guard header.fileSize == file.size, header.digest == file.headerDigest else {
            throw TesseraError(
                .inputMissing,
                "is not the file of the plan: \(header.fileSize) bytes with header \(header.digest), "
                    + "the plan has \(file.size) bytes with header \(file.headerDigest)",
                file: path,
                advice: "make the copies on all hosts the same, or submit the job again if the file was replaced on purpose")
        }
        return path
    }

    private func stripRoot(_ canonical: String) -> String? {
        for directory in directories {
            if let relative = FilePath.relative(canonical, to: directory) { return relative }
        }
        return nil
    }
}
