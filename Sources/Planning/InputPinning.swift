import Checkpoints
import Core
import Dispatch
import Synchronization
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
        let found = Mutex<[Int: Result<(contents: ContentPin, blob: HubBlob?), TesseraError>]>([:])
        DispatchQueue.concurrentPerform(iterations: paths.count) { index in
            let result = Result { () throws(TesseraError) in try tensorPin(paths[index], in: files) }
            found.withLock { $0[index] = result }
        }
        var pins: [(contents: ContentPin, blob: HubBlob?)] = []
        for (_, result) in found.withLock({ $0 }).sorted(by: { $0.key < $1.key }) { pins.append(try result.get()) }
        return pins
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
