import Core
import Foundation

/// Where things lie in the working tree.
package enum Repository {
    package static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
    package static let golden = "\(root)/Tests/Golden"
    package static let digits = "\(root)/Sources/Demo/Resources/digits"
}

/// A directory that goes away with the value that made it.
package final class TemporaryDirectory: Sendable {
    package let path: String

    package init() throws {
        path = NSTemporaryDirectory() + "tessera-test-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    package var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }

    @discardableResult
    package func write(_ text: String, to name: String) throws -> String {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
        return "\(path)/\(name)"
    }
}

/// The paths of all files below a directory, relative to it, sorted by their bytes. Links are files.
package func filesBelow(_ path: String) throws -> [String] { try Directory(path).filesBelow() }
