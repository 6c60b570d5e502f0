package import Core

/// A file that a plan was made of.
package struct PinnedFile: Sendable, Hashable, Codable {
    /// `FileStatus.identity` on the host that planned.
    package let identity: String
    /// `ContentSample`; `nil` if it could not be read, or was noted by an earlier version.
    package let sample: Digest?

    package init(identity: String, sample: Digest? = nil) {
        self.identity = identity
        self.sample = sample
    }

    private enum CodingKeys: CodingKey { case identity, sample }

    /// Earlier versions wrote the identity alone.
    package init(from decoder: any Decoder) throws {
        if let identity = try? decoder.singleValueContainer().decode(String.self) {
            self.init(identity: identity)
        } else {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            self.init(
                identity: try container.decode(String.self, forKey: .identity),
                sample: try container.decodeIfPresent(Digest.self, forKey: .sample))
        }
    }

    /// Whether the other is the same file with the same contents, perhaps on a file system that was mounted anew: there, the
    /// sample and the time of the contents must be the same.
    package func isSame(as other: PinnedFile) -> Bool {
        if let sample, let others = other.sample, sample != others { return false }
        if identity == other.identity { return true }
        // Earlier versions put the number of the device before the rest.
        guard sample != nil else { return identity.hasSuffix("-\(other.identity)") }
        return other.sample != nil && timeOfContents == other.timeOfContents
    }

    private var timeOfContents: Substring {
        identity[(identity.lastIndex(of: "-").map(identity.index(after:)) ?? identity.startIndex)...]
    }
}
