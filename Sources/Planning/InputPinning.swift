import Checkpoints
import Core
package import Work

/// How input files are recognised by what they hold.
package struct InputPinning: Sendable {
    package let digests: InputDigests
    /// Whether all of each file is read, not a sample only.
    package let readsWhole: Bool

    package init(digests: InputDigests = InputDigests(), readsWhole: Bool = false) {
        self.digests = digests
        self.readsWhole = readsWhole
    }

    /// - Parameter path: absolute.
    /// - Throws: what reading throws; `badData` for a file that changes meanwhile.
    func pin(_ path: String, in files: any InputFiles) throws(TesseraError) -> ContentPin {
        try digests.pin(files.open(path), path: path)
    }

    /// The pin of each file that holds tensors, and what its name says of it, on all processors.
    ///
    /// - Parameter paths: absolute.
    /// - Throws: as `pin`, for the first file that has a problem; `badData` for a file of the hub's cache that is read whole and
    ///   holds something else than its name says.
    func tensorPins(
        _ paths: [String], in files: any InputFiles
    ) throws(TesseraError) -> [(contents: ContentPin, blob: HubBlob?)] {
        let pins = paths.concurrentMap { path in Result { () throws(TesseraError) in try tensorPin(path, in: files) } }
        return try pins.map { (pin) throws(TesseraError) in try pin.get() }
    }

    private func tensorPin(
        _ path: String, in files: any InputFiles
    ) throws(TesseraError) -> (contents: ContentPin, blob: HubBlob?) {
        let path = try files.canonicalPath(of: path) ?? path, source = try files.open(path)
        let contents = try digests.pin(source, path: path, readsWhole: readsWhole), blob = HubBlob(path: path)
        if let sha256 = contents.sha256 { try blob?.check(source, sha256: sha256, file: path) }
        return (contents, blob)
    }
}
