package import Core

/// A host and a port, as in `127.0.0.1:7070`, `[::1]:7070` or `coordinator.cluster:7070`.
package struct HostPort: Sendable, Hashable {
    package let host: String
    package let port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// - Returns: `nil` unless `text` has a host and a port of 0 to 65535; a URL is neither.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty, !host.contains(where: { $0 == "/" || $0 == "@" || $0.isWhitespace }) else { return nil }
        self.init(host: host, port: Int(port))
    }

    /// Whether only this machine can reach it.
    package var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }
}

extension TesseraError {
    /// Names the peer that the error calls so: `the peer does not speak TLS` becomes `head:7070 does not speak TLS`.
    package func about(_ peer: HostPort) -> TesseraError {
        let words = "the peer"
        guard problem.hasPrefix(words) else { return self }
        var error = self
        error.problem = "\(peer)\(problem.dropFirst(words.count))"
        return error
    }
}

extension HostPort: CustomStringConvertible {
    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
