package import Core

/// A bearer token. Descriptions and logs never show its text.
package struct AccessToken: Sendable, Hashable, Codable {
    /// For the hello message only.
    private let text: String

    /// Bytes of a token. A shorter token could be guessed.
    package static let byteCounts = 16...512

    /// - Returns: `nil` unless the text is 16 to 512 printable ASCII characters without spaces.
    package init?(_ text: String) {
        guard Self.byteCounts.contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
        self.text = text
    }

    /// Decodes any text, which a list of tokens then does not contain.
    package init(from decoder: any Decoder) throws { text = try decoder.singleValueContainer().decode(String.self) }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }

    /// SHA-256 of the text, so that comparing two tokens takes the same time whatever their texts are.
    fileprivate func digest() throws(TesseraError) -> Digest { try .sha256(of: Array(text.utf8)) }
}

extension AccessToken: CustomStringConvertible, CustomDebugStringConvertible {
    package var description: String { "<token>" }
    package var debugDescription: String { description }
}

/// The tokens that a coordinator accepts.
///
/// A token file has one token per line, each preceded by its roles (`worker`, `submitter,viewer`, ...). A token without roles has
/// all of them. Empty lines and lines that begin with `#` are ignored.
package struct AccessTokens: Sendable {
    private struct Entry {
        let digest: Digest
        let peer: PeerIdentity
    }

    private let entries: [Entry]

    /// - Parameter path: the file, for errors.
    /// - Throws: `badData` with the line's number; the line's text is never shown.
    package init(parsing text: String, path: String) throws(TesseraError) {
        var entries: [Entry] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard let last = words.last, !line.hasPrefix("#") else { continue }
            func problem(_ what: String) -> TesseraError { TesseraError(.badData, what, file: path, line: index + 1) }
            guard words.count <= 2 else { throw problem("the line is not of the form 'ROLE[,ROLE...] TOKEN' or 'TOKEN'") }
            guard let token = AccessToken(String(last)) else {
                throw problem(
                    "the token is not \(AccessToken.byteCounts.lowerBound) to \(AccessToken.byteCounts.upperBound) "
                        + "printable ASCII characters")
            }
            var roles = Set(AccessRole.allCases)
            if words.count == 2 {
                let names = words[0].split(separator: ",")
                roles = Set(names.compactMap { AccessRole(rawValue: String($0)) })
                guard roles.count == names.count else {
                    throw problem("unknown role; the roles are \(AccessRole.allCases.map(\.rawValue).joined(separator: ", "))")
                }
            }
            let name = "the holder of the token on line \(index + 1)"
            entries.append(Entry(digest: try token.digest(), peer: PeerIdentity(name: name, roles: roles)))
        }
        guard !entries.isEmpty else { throw TesseraError(.badData, "holds no token", file: path) }
        self.entries = entries
    }

    /// Compares with every token, in constant time.
    package func identify(_ token: AccessToken) throws(TesseraError) -> PeerIdentity? {
        let digest = try token.digest()
        var found: PeerIdentity?
        for entry in entries where entry.digest.equalsInConstantTime(digest) { found = entry.peer }
        return found
    }
}
