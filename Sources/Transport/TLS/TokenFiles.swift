package import Core
package import Protocol
import Synchronization

/// The tokens that a coordinator accepts, from a file that is read again when it changes.
package final class ServerTokens: Sendable {
    private struct Loaded {
        var tokens: AccessTokens
        var version = 0
    }

    private let path: String
    private let loaded: Mutex<Loaded>

    /// - Parameter path: see `AccessTokens`.
    /// - Throws: `notAllowed` for a file that other users can read, `badData` for one without tokens or with a line that is none,
    ///   and what reading the file throws.
    package init(path: String) throws(TesseraError) {
        self.path = path
        loaded = Mutex(Loaded(tokens: try Self.read(path)))
    }

    /// The tokens that are accepted now.
    package var current: AccessTokens { loaded.withLock { $0.tokens } }

    /// Another number each time that other tokens are accepted.
    package var version: Int { loaded.withLock { $0.version } }

    /// Reads the file again.
    ///
    /// - Returns: what is new; `nil` if nothing is.
    /// - Throws: as `init`; the former tokens then stay in use.
    package func reload() throws(TesseraError) -> AccessTokens.Changes? {
        let tokens = try Self.read(path)
        return loaded.withLock { loaded in
            let changes = tokens.changes(since: loaded.tokens)
            loaded.tokens = tokens
            if changes != nil { loaded.version += 1 }
            return changes
        }
    }

    private static func read(_ path: String) throws(TesseraError) -> AccessTokens {
        try AccessTokens(parsing: String(decoding: try readSecret(path), as: UTF8.self), path: path)
    }
}

/// A worker's or client's own token. The file is read for each connection.
package struct ClientToken: Sendable, Hashable {
    private let path: String

    /// - Parameter path: a file with one token, which roles and a name may precede as in the coordinator's file.
    package init(path: String) { self.path = path }

    /// - Throws: `notAllowed` for a file that other users can read, `badData` for one without a token, and what reading the file
    ///   throws.
    package func read() throws(TesseraError) -> AccessToken {
        let text = String(decoding: try readSecret(path), as: UTF8.self)
        guard let word = text.split(whereSeparator: \.isWhitespace).last, let token = AccessToken(String(word)) else {
            throw TesseraError(
                .badData, "does not hold a token of \(AccessToken.byteCounts.lowerBound) or more printable characters",
                file: path, advice: "make one: openssl rand -hex 32")
        }
        return token
    }
}
