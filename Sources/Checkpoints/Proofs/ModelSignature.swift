package import Core
import FoundationEssentials

/// A signature over every file of a model's directory, in the layout of the model-signing tool of the sigstore project, with a
/// key of the signer's own: a sigstore bundle (v0.3) that holds a DSSE envelope over an in-toto statement with the digest of
/// each file.
package struct ModelSignature: Sendable {
    /// In the directory that it signs.
    package static let fileName = "model.sig"
    /// What hosts of repositories add to a directory. Neither signed nor missed.
    static let hostPaths = [".git", ".gitattributes", ".github", ".gitignore"]

    /// In the order of the statement; no two have the same name.
    let files: [FileDigest]
    /// Files and folders that the signer has left out.
    let ignored: [String]
    /// Whether the signer has read files by way of links.
    let allowsLinks: Bool

    fileprivate static let mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
    fileprivate static let payloadType = "application/vnd.in-toto+json"
    fileprivate static let predicateType = "https://model_signing/signature/v1.0"

    // MARK: Signing

    private struct Predicate: Encodable {
        struct Resource: Encodable {
            let name: String
            let algorithm = "sha256"
            let digest: Digest
        }

        struct Serialization: Encodable {
            let method = "files"
            let allowsLinks: Bool
            let hash = "sha256"
            let ignored: [String]

            enum CodingKeys: String, CodingKey {
                case method
                case allowsLinks = "allow_symlinks"
                case hash = "hash_type"
                case ignored = "ignore_paths"
            }
        }

        let resources: [Resource]
        let serialization: Serialization
    }

    private struct Bundle: Encodable {
        struct Material: Encodable {
            let publicKey: [String: String]
            let tlogEntries: [String]
        }

        struct Envelope: Encodable {
            let payload: String
            let payloadType: String
            let signatures: [[String: String]]
        }

        let mediaType: String
        let verificationMaterial: Material
        let dsseEnvelope: Envelope
    }

    /// Signs the files of a directory.
    ///
    /// - Parameters:
    ///   - files: every file but the signature, by its path in the directory.
    ///   - name: the directory's, for people.
    /// - Returns: the contents of `model.sig`.
    /// - Throws: `internal` if libcrypto fails.
    package static func signing(
        _ files: [FileDigest], of name: String, with key: SigningKey
    ) throws(TesseraError) -> [UInt8] {
        // The tool's order: folder by folder.
        let resources = files.map { (path: FilePath.components(of: $0.name), file: $0) }
            .sorted { $0.path.lexicographicallyPrecedes($1.path) { $0.precedesInBytes($1) } }
            .map { Predicate.Resource(name: $0.file.name, digest: $0.file.digest) }
        let predicate = Predicate(resources: resources, serialization: .init(allowsLinks: false, ignored: [fileName] + hostPaths))
        let subject = Artifact(name, try root(of: resources.map(\.digest)))
        let payload = try stableJSON(Statement(of: [subject], predicateType, predicate))
        let signature = try key.sign(signed(payload))
        return try stableJSON(
            Bundle(
                mediaType: mediaType,
                verificationMaterial: .init(
                    publicKey: ["hint": try key.verificationKey.fingerprint().hex], tlogEntries: []),
                dsseEnvelope: .init(
                    payload: Data(payload).base64EncodedString(), payloadType: payloadType,
                    signatures: [["sig": Data(signature).base64EncodedString(), "keyid": ""]])))
    }

    /// What is signed: DSSE's pre-authentication encoding (DSSE v1.0.0, protocol).
    fileprivate static func signed(_ payload: [UInt8]) -> [UInt8] {
        Array("DSSEv1 \(payloadType.utf8.count) \(payloadType) \(payload.count) ".utf8) + payload
    }

    /// The digest of the model as a whole: SHA-256 over the digests of its files.
    fileprivate static func root(of digests: [Digest]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        for digest in digests { hash.update(digest) }
        return try hash.finalize()
    }

    // MARK: Reading

    /// Reads a signature and checks that `key` made it.
    ///
    /// - Parameter file: its path, for errors.
    /// - Throws: `badData` for what is no such signature, or one with settings that are not supported; `difference` for one that
    ///   is not by this key.
    package init(_ bytes: [UInt8], file: String, by key: VerificationKey) throws(TesseraError) {
        let bundle = try SignatureBundle(bytes, file: file)
        let fingerprint = try key.fingerprint()
        // Signatures of the tool's first releases name no key.
        if let hint = bundle.keyHint, hint != fingerprint.hex {
            throw TesseraError(
                .difference, "is signed with another key: \(hint.printable), and this one is \(fingerprint)", file: file,
                advice: "get the signer's public key from the signer")
        }
        guard try key.accepts(bundle.signature, of: Self.signed(bundle.payload)) else {
            throw TesseraError(
                .difference, "the signature is not one of its contents by this key", file: file,
                advice: "the file was changed, or signed by somebody else: do not use the model")
        }
        let statement = try SignedStatement(bundle.payload, file: file)
        files = statement.files
        ignored = statement.ignored
        allowsLinks = statement.allowsLinks
    }
}

/// The parts of a sigstore bundle that a signature with a key has.
package struct SignatureBundle: Sendable {
    /// The signer's key; `nil` where the bundle names none.
    package let keyHint: String?
    package let payload: [UInt8]
    package let signature: [UInt8]

    /// - Throws: `badData` for anything else than a bundle with one signature of a statement.
    package init(_ bytes: [UInt8], file: String) throws(TesseraError) {
        var scanner = JSONScanner(bytes, file: file)
        var mediaType = "", keyHint: String?, payload: [UInt8]?, payloadType = "", signatures: [[UInt8]] = []
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "mediaType": mediaType = try scanner.string()
            case "verificationMaterial":
                try scanner.object { scanner, key throws(TesseraError) in
                    guard key == "publicKey" else {
                        // A certificate is another way of saying who signed.
                        guard key == "tlogEntries" || key == "timestampVerificationData" else {
                            throw scanner.error("is not signed with a key, but with '\(key.printable)'")
                        }
                        try scanner.value()
                        return
                    }
                    try scanner.object { scanner, key throws(TesseraError) in
                        if key == "hint" { keyHint = try scanner.string() } else { try scanner.value() }
                    }
                }
            case "dsseEnvelope":
                try scanner.object { scanner, key throws(TesseraError) in
                    switch key {
                    case "payload": payload = try scanner.base64()
                    case "payloadType": payloadType = try scanner.string()
                    case "signatures":
                        try scanner.array { scanner throws(TesseraError) in
                            try scanner.object { scanner, key throws(TesseraError) in
                                if key == "sig" { signatures.append(try scanner.base64()) } else { try scanner.value() }
                            }
                        }
                    default: try scanner.value()
                    }
                }
            case "messageSignature": throw scanner.error("signs a message instead of a statement")
            default: try scanner.value()
            }
        }
        scanner.skipSpace()
        guard scanner.isAtEnd else { throw scanner.error("unexpected data after the object") }
        func problem(_ what: String) -> TesseraError { TesseraError(.badData, what, file: file) }
        guard mediaType == ModelSignature.mediaType else {
            throw problem("is not a sigstore bundle of version 0.3, but '\(mediaType.printable)'")
        }
        guard payloadType == ModelSignature.payloadType, let payload else {
            throw problem("does not sign an in-toto statement, but '\(payloadType.printable)'")
        }
        guard signatures.count == 1 else { throw problem("has \(signatures.count) signatures instead of one") }
        self.keyHint = keyHint?.isEmpty == false ? keyHint : nil
        self.payload = payload
        signature = signatures[0]
    }
}

/// The statement that a signature signs.
package struct SignedStatement: Sendable {
    package private(set) var files: [FileDigest] = []
    package private(set) var ignored: [String] = []
    package private(set) var allowsLinks = false

    private var types: [String] = ["", ""]
    private var roots: [Digest?] = []
    private var method = "", hash = ""
    private var names: Set<ExactText> = []

    /// - Parameter payload: what the envelope holds.
    /// - Throws: `badData` for another statement, for names that lead out of the directory, and for settings that are not
    ///   supported.
    package init(_ payload: [UInt8], file: String) throws(TesseraError) {
        var scanner = JSONScanner(payload, file: file)
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "_type": types[0] = try scanner.string()
            case "predicateType": types[1] = try scanner.string()
            case "subject": try readSubjects(&scanner)
            case "predicate": try readPredicate(&scanner)
            default: try scanner.value()
            }
        }
        scanner.skipSpace()
        guard scanner.isAtEnd else { throw scanner.error("unexpected data after the statement") }
        func problem(_ what: String) -> TesseraError { TesseraError(.badData, what, file: file) }
        guard types[0] == Statement<Digest>.type, types[1] == ModelSignature.predicateType else {
            throw problem("signs a statement of another type: \(types[0].printable), \(types[1].printable)")
        }
        guard method == "files", hash == "sha256" else {
            throw problem("signs '\(method.printable)' by '\(hash.printable)'; only whole files by sha256 are supported")
        }
        guard roots.count == 1, let root = roots[0], root == (try ModelSignature.root(of: files.map(\.digest))) else {
            throw problem("the digest of the whole model does not follow from those of its files")
        }
    }

    private mutating func readSubjects(_ scanner: inout JSONScanner) throws(TesseraError) {
        try scanner.array { scanner throws(TesseraError) in
            var root: Digest?
            try scanner.object { scanner, key throws(TesseraError) in
                guard key == "digest" else {
                    try scanner.value()
                    return
                }
                try scanner.object { scanner, key throws(TesseraError) in
                    if key == "sha256" { root = Digest(hex: try scanner.string()) } else { try scanner.value() }
                }
            }
            roots.append(root)
        }
    }

    private mutating func readPredicate(_ scanner: inout JSONScanner) throws(TesseraError) {
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "resources": try scanner.array { scanner throws(TesseraError) in try readResource(&scanner) }
            case "serialization":
                try scanner.object { scanner, key throws(TesseraError) in
                    switch key {
                    case "method": method = try scanner.string()
                    case "hash_type": hash = try scanner.string()
                    case "allow_symlinks": allowsLinks = try scanner.flag()
                    case "ignore_paths":
                        try scanner.array { scanner throws(TesseraError) in ignored.append(try scanner.string()) }
                    default: try scanner.value()
                    }
                }
            default: try scanner.value()
            }
        }
    }

    private mutating func readResource(_ scanner: inout JSONScanner) throws(TesseraError) {
        var name = "", algorithm = "", digest: Digest?
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "name": name = try scanner.string()
            case "algorithm": algorithm = try scanner.string()
            case "digest": digest = Digest(hex: try scanner.string())
            default: try scanner.value()
            }
        }
        let isInside = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            .allSatisfy { FilePath.isName(String(Substring($0))) }
        guard isInside else { throw scanner.error("'\(name.printable)' is not the path of a file in the directory") }
        guard algorithm == "sha256", let digest else { throw scanner.error("'\(name.printable)' has no SHA-256 digest") }
        guard names.insert(ExactText(name)).inserted else {
            throw scanner.error("the file '\(name.printable)' is named twice")
        }
        files.append(FileDigest(name: name, digest: digest))
    }
}

extension JSONScanner {
    /// A string of bytes in base64 (RFC 4648, section 4).
    fileprivate mutating func base64() throws(TesseraError) -> [UInt8] {
        guard let data = Data(base64Encoded: try string()) else { throw error("expected bytes in base64") }
        return Array(data)
    }
}
