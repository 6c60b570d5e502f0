package import Core
import Glibc
import Recipes
import Work

/// Finds the directory of a model that a recipe names: a path, or a repository in the Hugging Face hub's local cache. Never asks
/// a network.
struct ModelLocator {
    let roots: Roots
    let workingDirectory: String
    let pinning: InputPinning
    /// The hub's cache, as `huggingface_hub` finds it.
    let hubCache: String?

    init(_ request: PlanRequest) {
        self.init(roots: request.roots, workingDirectory: request.workingDirectory, pinning: request.pinning)
    }

    init(
        roots: Roots, workingDirectory: String, pinning: InputPinning = InputPinning(),
        environment: (String) -> String? = Self.environment
    ) {
        self.roots = roots
        self.pinning = pinning
        self.workingDirectory = workingDirectory
        hubCache =
            environment("HF_HUB_CACHE") ?? environment("HUGGINGFACE_HUB_CACHE") ?? environment("HF_HOME").map { "\($0)/hub" }
            ?? environment("XDG_CACHE_HOME").map { "\($0)/huggingface/hub" }
            ?? environment("HOME").map { "\($0)/.cache/huggingface/hub" }
    }

    private static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The absolute path of a file or directory.
    ///
    /// - Throws: `inputMissing` when it is in neither place, `notAllowed` when it lies outside the roots, `badData` for a local
    ///   directory with a revision.
    func locate(_ source: ModelReference.Source) throws(TesseraError) -> String {
        do throws(TesseraError) {
            let relative = try roots.relativePath(of: source.path, workingDirectory: workingDirectory)
            guard let path = roots.locate(relative) else {
                throw TesseraError(.inputMissing, "no such file or directory", file: source.path)
            }
            guard source.revision == nil else {
                throw TesseraError(
                    .badData, "'\(source)' names a revision, but a local directory has no revisions", file: source.path,
                    advice: "remove '@\(source.revision ?? "")'")
            }
            return path
        } catch  where error.code == .inputMissing {
            guard let repository = HubRepository(source, cache: hubCache, files: roots.files) else { throw error }
            return try snapshot(of: repository)
        }
    }

    private func snapshot(of repository: HubRepository) throws(TesseraError) -> String {
        guard let snapshot = try repository.snapshot() else {
            let known = try repository.isCached ? "has no revision '\(repository.revision)' of it" : "does not contain it"
            throw TesseraError(
                .inputMissing, "no such file or directory, and the Hugging Face cache \(repository.cache) \(known)",
                file: repository.name,
                advice: "correct the path, or download the repository, for example with: hf download \(repository.name)")
        }
        guard let path = roots.locate(try roots.relativePath(of: snapshot, workingDirectory: nil)) else {
            throw TesseraError(.inputMissing, "no such file or directory", file: snapshot)
        }
        return path
    }
}

/// Where a model lies that a command names without a recipe.
package enum ModelPath {
    /// - Parameter text: a path, or a repository in the hub's cache, perhaps with `@REVISION`.
    /// - Throws: `inputMissing` for what is neither.
    package static func locate(_ text: String, workingDirectory: String) throws(TesseraError) -> String {
        guard let reference = ModelReference(parsing: text), reference.adapter == nil, reference.task == nil else {
            throw TesseraError(.inputMissing, "no such file or directory", file: text)
        }
        return try ModelLocator(PlanRequest(recipe: "", recipeName: "", workingDirectory: workingDirectory)).locate(
            reference.model)
    }
}

/// A repository of the hub as its cache lays it out: `models--ORG--NAME/refs/REVISION` names a commit, `snapshots/COMMIT` holds
/// its files.
private struct HubRepository {
    let cache: String
    let name: String
    let revision: String
    private let files: any InputFiles

    /// - Returns: `nil` for what is no repository's name.
    init?(_ source: ModelReference.Source, cache: String?, files: any InputFiles) {
        let parts = source.path.split(separator: "/", omittingEmptySubsequences: false)
        guard let cache, (1...2).contains(parts.count), parts.allSatisfy(Self.isName) else { return nil }
        self.cache = cache
        self.files = files
        name = source.path
        revision = source.revision ?? "main"
    }

    private static func isName(_ text: Substring) -> Bool {
        !text.isEmpty && !text.hasPrefix(".")
            && text.utf8.allSatisfy { byte in
                Character(UnicodeScalar(byte)).isLetter && byte < 128 || (48...57).contains(byte) || "-_.".utf8.contains(byte)
            }
    }

    private var directory: String { "\(cache)/models--\(name.split(separator: "/").joined(separator: "--"))" }

    var isCached: Bool {
        get throws(TesseraError) { try files.isDirectory(directory) }
    }

    func snapshot() throws(TesseraError) -> String? {
        guard !revision.contains("..") else { return nil }
        let reference = "\(directory)/refs/\(revision)"
        if try files.status(of: reference)?.kind == .file {
            let commit = String(decoding: try files.read(reference, maxBytes: 256), as: UTF8.self).filter { !$0.isWhitespace }
            let path = "\(directory)/snapshots/\(commit)"
            if try files.isDirectory(path) { return path }
        }
        // A commit, or enough of its beginning.
        guard try files.isDirectory("\(directory)/snapshots") else { return nil }
        let commits = try files.list("\(directory)/snapshots").filter { $0.hasPrefix(revision) }
        return commits.count == 1 ? "\(directory)/snapshots/\(commits[0])" : nil
    }
}
