/// Paths as file systems see them: bytes, cut at slashes.
///
/// A Swift `Character` can be a slash together with a combining mark behind it, so a path is never cut or counted by characters.
package enum FilePath {
    private static let slash = UInt8(ascii: "/")

    /// The names between the slashes, without empty ones.
    package static func components(of path: String) -> [String] {
        path.utf8.split(separator: slash).map { String(Substring($0)) }
    }

    package static func isAbsolute(_ path: String) -> Bool { path.utf8.first == slash }

    /// `path` itself if it is absolute, else the path below `directory`.
    package static func absolute(_ path: String, in directory: String) -> String {
        isAbsolute(path) ? path : join(directory, path)
    }

    package static func join(_ directory: String, _ name: String) -> String {
        directory.utf8.last == slash ? directory + name : "\(directory)/\(name)"
    }

    /// The directory that holds the last component; `.` for a path without a slash before that. Slashes at the end count for
    /// nothing.
    package static func parent(of path: String) -> String {
        guard let end = path.utf8.lastIndex(where: { $0 != slash }) else { return "/" }
        guard let last = path.utf8[...end].lastIndex(of: slash) else { return "." }
        return last == path.utf8.startIndex ? "/" : String(path[..<last])
    }

    /// Whether the name is one component: no slash, and neither empty, `.` nor `..`.
    package static func isName(_ name: String) -> Bool {
        !name.isEmpty && name != "." && name != ".." && !name.utf8.contains { $0 == slash || $0 == 0 }
    }

    /// Whether the path stays below the directory that it is relative to, and names no hidden file: no step is empty, begins
    /// with a dot or contains a zero byte.
    package static func isPlain(_ path: String) -> Bool {
        path.utf8.split(separator: slash, omittingEmptySubsequences: false)
            .allSatisfy { !$0.isEmpty && $0.first != UInt8(ascii: ".") && !$0.contains(0) }
    }

    /// An absolute path without `.` and `..`, as if no component were a link.
    package static func normalized(_ path: String) -> String {
        var steps: [String] = []
        for component in components(of: path) where component != "." {
            if component == ".." { _ = steps.popLast() } else { steps.append(component) }
        }
        return "/" + steps.joined(separator: "/")
    }

    /// The part of `path` below `directory`, both without links and double slashes; `.` for the directory itself.
    ///
    /// - Returns: `nil` if the path lies elsewhere.
    package static func relative(_ path: String, to directory: String) -> String? {
        if path.utf8.elementsEqual(directory.utf8) { return "." }
        let prefix = join(directory, "")
        guard path.utf8.starts(with: prefix.utf8) else { return nil }
        return String(Substring(path.utf8.dropFirst(prefix.utf8.count)))
    }
}
