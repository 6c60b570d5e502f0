import Core

/// An in-toto statement (in-toto attestation framework, v1): a predicate about artifacts, which are known by their digests.
struct Statement<Predicate: Encodable & Sendable>: Encodable, Sendable {
    /// The one type of statements.
    static var type: String { "https://in-toto.io/Statement/v1" }

    let subject: [Artifact]
    let predicateType: String
    let predicate: Predicate
    private let type = Self.type

    enum CodingKeys: String, CodingKey {
        case subject, predicateType, predicate
        case type = "_type"
    }

    init(of subject: [Artifact], _ predicateType: String, _ predicate: Predicate) {
        self.subject = subject
        self.predicateType = predicateType
        self.predicate = predicate
    }
}

/// A name and a SHA-256 digest: in-toto's ResourceDescriptor.
struct Artifact: Encodable, Sendable, Hashable {
    let name: String
    let digest: [String: Digest]

    init(_ name: String, _ digest: Digest) {
        self.name = name
        self.digest = ["sha256": digest]
    }
}
