import Core
import Foundation
import Testing

@Suite struct KernelIdentityTests {
    /// Hosts that took one another for the same machine would write to one file without checking that it can be shared.
    @Test func itIsTheBootsIdentifier() throws {
        let identity = try #require(kernelIdentity())
        #expect(UUID(uuidString: identity) != nil, "\(identity)")
        #expect(identity == kernelIdentity())
    }
}
