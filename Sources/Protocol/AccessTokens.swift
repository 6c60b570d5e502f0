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
/// A token file has one token per line, each preceded by its roles (`worker`, `submitter,viewer`, ...), and these by the holder's
/// name, which owns the holder's jobs. A token without roles has all of them. Tokens with the same name have the same owner.
/// Empty lines and lines that begin with `#` are ignored.
package struct AccessTokens: Sendable {
    private struct Entry {
        let digest: Digest
        let peer: PeerIdentity

        /// Whether both give the same holder the same roles, wherever their lines stand.
        func grants(the other: Entry) -> Bool {
            digest == other.digest && peer.roles == other.peer.roles && peer.owner == other.peer.owner
        }
    }

    /// What distinguishes a list of tokens from an earlier one, by the names of the holders.
    package struct Changes: Sendable, Hashable {
        package let added: [String]
        package let removed: [String]

        package init(added: [String], removed: [String]) {
            self.added = added
            self.removed = removed
        }
    }

    private let entries: [Entry]
    /// Bytes of a holder's name.
    private static let nameBytes = 1...64
    /// The owner of the jobs of a token without a name. No name has a space.
    private static let namelessOwner = "token without name"

    /// - Parameter path: the file, for errors.
    /// - Throws: `badData` with the line's number; the line's text is never shown.
    package init(parsing text: String, path: String) throws(TesseraError) {
        var entries: [Entry] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard let last = words.last, !line.hasPrefix("#") else { continue }
            func problem(_ what: String) -> TesseraError { TesseraError(.badData, what, file: path, line: index + 1) }
            guard words.count <= 3 else {
                throw problem("the line is not of the form '[NAME] ROLE[,ROLE...] TOKEN' or 'TOKEN'")
            }
            guard let token = AccessToken(String(last)) else {
                throw problem(
                    "the token is not \(AccessToken.byteCounts.lowerBound) to \(AccessToken.byteCounts.upperBound) "
                        + "printable ASCII characters")
            }
            var roles = Set(AccessRole.allCases)
            if words.count > 1 {
                let names = words[words.count - 2].split(separator: ",")
                roles = Set(names.compactMap { AccessRole(rawValue: String($0)) })
                guard roles.count == names.count else {
                    throw problem("unknown role; the roles are \(AccessRole.allCases.map(\.rawValue).joined(separator: ", "))")
                }
            }
            let name = words.count == 3 ? String(words[0]) : nil
            guard name.map(Self.isName) ?? true else {
                throw problem("the name must have 1 to \(Self.nameBytes.upperBound) ASCII letters, digits, '.', '-', '_' or '@'")
            }
            let digest = try token.digest()
            guard !entries.contains(where: { $0.digest == digest }) else {
                throw problem("the token stands on an earlier line too")
            }
            entries.append(
                Entry(
                    digest: digest,
                    peer: PeerIdentity(
                        name: name ?? "token on line \(index + 1)",
                        title: name == nil ? "the holder of the token on line \(index + 1)" : nil, roles: roles,
                        owner: name.map { "token:\($0)" } ?? Self.namelessOwner)))
        }
        guard !entries.isEmpty else { throw TesseraError(.badData, "holds no token", file: path) }
        try Self.checkOwners(entries.map(\.peer), path)
        self.entries = entries
    }

    private static func isName(_ text: String) -> Bool {
        nameBytes.contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                byte < 0x80 && (Character(UnicodeScalar(byte)).isLetter || Character(UnicodeScalar(byte)).isNumber)
                    || "._-@".utf8.contains(byte)
            }
    }

    /// - Throws: `badData` where nobody could tell which of several holders a job belongs to.
    private static func checkOwners(_ peers: [PeerIdentity], _ path: String) throws(TesseraError) {
        let nameless = peers.filter {
            $0.owner == namelessOwner && $0.roles.contains(.submitter) && !$0.roles.contains(.operator)
        }
        guard nameless.count > 1 else { return }
        throw TesseraError(
            .badData, "\(nameless.count) tokens of submitters have no name, so their jobs could not be told apart", file: path,
            advice: "write a name before the roles: 'NAME submitter TOKEN'")
    }

    /// - Returns: what is new since `earlier`; `nil` if the tokens give the same roles to the same holders.
    package func changes(since earlier: AccessTokens) -> Changes? {
        func names(of entries: [Entry], without others: [Entry]) -> [String] {
            entries.filter { entry in !others.contains { $0.grants(the: entry) } }.map(\.peer.name)
        }
        let changes = Changes(
            added: names(of: entries, without: earlier.entries), removed: names(of: earlier.entries, without: entries))
        return changes.added.isEmpty && changes.removed.isEmpty ? nil : changes
    }

    /// Compares with every token, in constant time.
    package func identify(_ token: AccessToken) throws(TesseraError) -> PeerIdentity? {
        let digest = try token.digest()
        var found: PeerIdentity?
        for entry in entries where entry.digest.equalsInConstantTime(digest) { found = entry.peer }
        return found
    }
}
