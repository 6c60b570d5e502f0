import Core
import Logging
import Protocol
import Transport

/// Takes new certificates and tokens into use as their files change. Files that cannot be used change nothing; that is logged
/// once, and again when something else is wrong with them.
struct CredentialWatch {
    /// How often to look.
    static let interval = Duration.seconds(10)

    private let security: JobPortSecurity
    private let log: Logger
    /// What was wrong when the files were last read.
    private var problems: [String: TesseraError] = [:]

    init(_ security: JobPortSecurity, log: Logger) {
        self.security = security
        self.log = log
    }

    mutating func look() {
        switch security {
        case .open: break
        case .certificates(let tls): look(tls)
        case .tokens(let tokens, let tls):
            look(tls)
            look(tokens)
        }
    }

    private mutating func look(_ tls: ServerTLS) {
        let log = log
        note("TLS files") { () throws(TesseraError) in
            if try tls.reload() { log.info("the TLS files have changed; new connections use the new ones") }
        }
    }

    private mutating func look(_ tokens: ServerTokens) {
        let log = log
        note("token file") { () throws(TesseraError) in
            guard let changes = try tokens.reload() else { return }
            log.notice(
                "the token file has changed; connections of removed tokens end",
                metadata: [
                    "added": "\(changes.added.joined(separator: ", "))", "removed": "\(changes.removed.joined(separator: ", "))",
                ])
        }
    }

    private mutating func note(_ files: String, _ reload: () throws(TesseraError) -> Void) {
        do throws(TesseraError) {
            try reload()
            problems[files] = nil
        } catch {
            guard problems.updateValue(error, forKey: files) != error else { return }
            log.warning("the new \(files) cannot be used; what was read before stays in use", metadata: ["error": "\(error)"])
        }
    }
}
