import Core
import Glibc

/// Where OUT may be.
enum OutputPath {
    /// The absolute path of `path`, whose directory exists and lies under `root` when there is one.
    ///
    /// - Throws: `cannotCreate` when the directory above does not exist, `notAllowed` when it lies outside the root.
    static func resolve(_ path: String, workingDirectory: String, root: String?) throws(TesseraError) -> String {
        let absolute = path.hasPrefix("/") ? path : "\(workingDirectory)/\(path)"
        let components = absolute.split(separator: "/")
        guard let name = components.last, name != ".", name != ".." else {
            throw TesseraError(.cannotCreate, "is no name for an output directory", file: path)
        }
        let parent = "/" + components.dropLast().joined(separator: "/")
        guard let canonical = realpath(parent, nil) else {
            throw TesseraError(
                .cannotCreate, "the directory above the output does not exist", file: parent, advice: "create it first")
        }
        defer { free(canonical) }
        let directory = String(cString: canonical)
        if let root, directory != root, !directory.hasPrefix(root.hasSuffix("/") ? root : root + "/") {
            throw TesseraError(.notAllowed, "the output lies outside the output root \(root)", file: path)
        }
        return directory == "/" ? "/\(name)" : "\(directory)/\(name)"
    }

    /// A path that `resolve` made, without the root that it lies under.
    static func relative(_ path: String, to root: String) -> String { String(path.dropFirst(root.count).drop { $0 == "/" }) }
}
