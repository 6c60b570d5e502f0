package import Checkpoints
import Core

extension TemporaryDirectory {
    /// Every file below a folder of the directory, with its digest.
    package func digests(below folder: String = ".") throws -> [FileDigest] {
        let root = "\(path)/\(folder)"
        return try FileDigest.of(
            filesBelow(root),
            digest: { (name) throws(TesseraError) in
                try SHA256Sums.digest(of: PreadSource(try ReadableFile("\(root)/\(name)")))
            })
    }
}
