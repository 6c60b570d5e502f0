import Core
import Testing
import Work

/// A job that goes on in another process must find the files that it began with.
@Suite struct PinnedFileTests {
    private let one: Digest, other: Digest

    init() throws {
        one = try .sha256(of: [1])
        other = try .sha256(of: [2])
    }

    private func isSame(_ identity: String, _ sample: Digest?, as others: String, _ otherSample: Digest?) -> Bool {
        PinnedFile(identity: identity, sample: sample).isSame(as: PinnedFile(identity: others, sample: otherSample))
    }

    @Test func theSameFileIsTheSame() {
        #expect(isSame("7-10.5", one, as: "7-10.5", one))
        #expect(isSame("7-10.5", one, as: "7-10.5", nil) && isSame("7-10.5", nil, as: "7-10.5", one))
    }

    /// Mounted anew, a file may have another number.
    @Test func aFileSystemMayBeMountedAnew() {
        #expect(isSame("7-10.5", one, as: "8-10.5", one))
        #expect(!isSame("7-10.5", one, as: "8-10.5", other), "other contents")
        #expect(!isSame("7-10.5", one, as: "8-10.6", one), "written to since")
        #expect(!isSame("7-10.5", one, as: "8-10.5", nil), "nobody knows")
    }

    @Test func contentsTellFilesApart() { #expect(!isSame("7-10.5", one, as: "7-10.5", other)) }

    /// As earlier versions wrote them, with the device.
    @Test func aJournalOfAnEarlierVersionIsUnderstood() {
        #expect(isSame("2049-7-10.5", nil, as: "7-10.5", one))
        #expect(!isSame("2049-7-10.5", nil, as: "8-10.5", one) && !isSame("2049-7-10.5", nil, as: "7-10.6", one))
        #expect(!isSame("2049-17-10.5", nil, as: "7-10.5", one))
    }
}
