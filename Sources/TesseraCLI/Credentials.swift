import ArgumentParser
import Coordinator
import Core
import Protocol
import Transport

/// This side's own certificate.
struct CertificateArguments: ParsableArguments {
    @Option(
        name: .customLong("tls-cert"),
        help: ArgumentHelp("This side's certificate, followed by its chain (PEM).", valueName: "file"), completion: .file())
    var certificate: String?

    @Option(
        name: .customLong("tls-key"), help: ArgumentHelp("The key of --tls-cert (PEM, mode 600).", valueName: "file"),
        completion: .file())
    var key: String?

    func validate() throws {
        guard (certificate == nil) == (key == nil) else { throw ValidationError("--tls-cert and --tls-key belong together.") }
    }

    /// - Returns: `nil` for a side without a certificate.
    var files: TLSFiles? { certificate.flatMap { certificate in key.map { TLSFiles(certificate: certificate, key: $0) } } }
}

/// How a worker or client proves who it is, and checks the coordinator.
struct CredentialArguments: ParsableArguments {
    @Option(
        name: .customLong("tls-ca"),
        help: ArgumentHelp("Use TLS; the coordinator's certificate must be signed by this authority (PEM).", valueName: "file"),
        completion: .file())
    var authority: String?

    @Option(
        name: .customLong("tls-pin"),
        help: ArgumentHelp("Use TLS; the coordinator's certificate must be exactly this one (PEM).", valueName: "file"),
        completion: .file())
    var pin: String?

    @OptionGroup var own: CertificateArguments

    @Option(
        name: .customLong("token"),
        help: ArgumentHelp("A file (mode 600) that holds the token to present to the coordinator.", valueName: "file"),
        completion: .file())
    var tokenFile: String?

    func validate() throws {
        guard authority == nil || pin == nil else { throw ValidationError("Give --tls-ca or --tls-pin, not both.") }
        guard authority != nil || pin != nil || (own.certificate == nil && tokenFile == nil) else {
            throw ValidationError("--tls-cert and --token need --tls-ca or --tls-pin, which say whom to trust.")
        }
    }

    /// The options as they were given. Keys and tokens are files.
    var words: [String] {
        let given = [
            ("--tls-ca", authority), ("--tls-pin", pin), ("--tls-cert", own.certificate), ("--tls-key", own.key),
            ("--token", tokenFile),
        ]
        return given.flatMap { name, value in value.map { [name, $0] } ?? [] }
    }

    /// - Returns: `nil` for a connection without TLS.
    func tls() throws -> ClientTLS? {
        if let authority { return ClientTLS(trust: .authority(authority), files: own.files) }
        return pin.map { ClientTLS(trust: .pinned($0), files: own.files) }
    }

    /// - Returns: `nil` for a peer without a token.
    var token: ClientToken? { tokenFile.map { ClientToken(path: $0) } }
}

/// How a coordinator proves who it is, and admits peers.
struct JobPortArguments: ParsableArguments {
    @OptionGroup var own: CertificateArguments

    @Option(
        name: .customLong("tls-ca"),
        help: ArgumentHelp(
            "Peers must have a certificate of this authority (PEM), whose names give their roles.", valueName: "file"),
        completion: .file())
    var authority: String?

    @Option(
        name: .customLong("token"),
        help: ArgumentHelp("A file (mode 600) of the tokens that peers may present, with their roles.", valueName: "file"),
        completion: .file())
    var tokenFile: String?

    func validate() throws {
        guard authority == nil || tokenFile == nil else {
            throw ValidationError("Peers are admitted by certificate (--tls-ca) or by token (--token), not both.")
        }
        guard own.certificate != nil || (authority == nil && tokenFile == nil) else {
            throw ValidationError("--tls-ca and --token need --tls-cert and --tls-key.")
        }
        guard own.certificate == nil || authority != nil || tokenFile != nil else {
            throw ValidationError("--tls-cert needs --tls-ca or --token, which say whom to admit.")
        }
    }

    /// - Throws: what is wrong with one of the files.
    func security() throws -> JobPortSecurity {
        guard let files = own.files else { return .open }
        let tls = try ServerTLS(files: files, authority: authority)
        guard let tokenFile else { return .certificates(tls) }
        return .tokens(try ServerTokens(path: tokenFile), tls)
    }
}
