package import Core

/// A host and a port, as in `127.0.0.1:7070`, `[::1]:7070` or `coordinator.cluster:7070`.
package struct HostPort: Sendable, Hashable {
    package let host: String
    package let port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// - Returns: `nil` for what `init(parsing:)` refuses.
    package init?(_ text: String) {
        guard let address = try? HostPort(parsing: text) else { return nil }
        self = address
    }

    /// - Parameter ports: those that may be meant.
    /// - Throws: `usage`, which says what `text` lacks and how to write it.
    package init(parsing text: String, ports: ClosedRange<Int> = 0...65535) throws(TesseraError) {
        func problem(_ what: String, write example: String) -> TesseraError {
            TesseraError(.usage, "\(what); write \(example)")
        }
        let example = "HOST:PORT"
        guard !text.contains("://") else { throw problem("an address is no URL", write: example) }
        guard !text.contains(where: { $0 == "/" || $0 == "@" || $0.isWhitespace }) else {
            throw problem("an address has no '/', '@' or space", write: example)
        }
        let isBracketed = text.hasPrefix("["), end = isBracketed ? text.lastIndex(of: "]") : nil
        guard !isBracketed || end != nil else { throw problem("the ']' is missing", write: "[ADDRESS]:PORT") }
        guard isBracketed || text.count(where: { $0 == ":" }) < 2 else {
            throw problem("an IPv6 address stands in brackets", write: "[ADDRESS]:PORT")
        }
        let hostEnd = end.map { text.index(after: $0) } ?? text.firstIndex(of: ":") ?? text.endIndex
        guard text[hostEnd...].first == ":" else { throw problem("the port is missing", write: "\(text[..<hostEnd]):PORT") }
        let host = isBracketed ? text[..<hostEnd].dropFirst().dropLast() : text[..<hostEnd]
        guard !host.isEmpty else { throw problem("the host is missing", write: "HOST\(text[hostEnd...])") }
        let digits = text[hostEnd...].dropFirst()
        guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let port = Int(digits),
            ports.contains(port)
        else {
            throw problem(
                "the port '\(digits)' is not a number from \(max(1, ports.lowerBound)) to \(ports.upperBound)", write: example)
        }
        self.init(host: String(host), port: port)
    }

    /// Whether only this machine can reach it.
    package var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }
}

extension TesseraError {
    /// Names the peer that the error calls so: `the peer does not speak TLS` becomes `head:7070 does not speak TLS`, and `the
    /// coordinator did not answer` becomes `the coordinator head:7070 did not answer`.
    package func about(_ peer: HostPort) -> TesseraError {
        var error = self
        for (words, name) in [("the peer", "\(peer)"), ("the coordinator", "the coordinator \(peer)")] {
            guard let rest = problem.dropping(prefix: words), rest.first == " " || rest.first == "'",
                !problem.hasPrefix("\(words) \(peer)")
            else { continue }
            error.problem = name + rest
        }
        return error
    }
}

extension HostPort: CustomStringConvertible {
    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

extension String {
    fileprivate func dropping(prefix: String) -> Substring? { hasPrefix(prefix) ? dropFirst(prefix.count) : nil }
}
