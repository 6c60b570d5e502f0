import Core
import Foundation
import TestSupport
import Testing

/// What certificates are for, as openssl writes it.
@Suite struct CertificateUsageTests {
    private func usage(_ name: String, _ certificates: Certificates) throws -> CertificateUsage? {
        let text = try String(contentsOfFile: certificates.path(name), encoding: .utf8)
        let lines = text.split(separator: "\n").filter { !$0.hasPrefix("-") }
        return CertificateUsage(der: Array(try #require(Data(base64Encoded: lines.joined()))))
    }

    @Test func anExtendedKeyUsageRestrictsACertificate() throws {
        let certificates = try Certificates(hosts: ["head"])
        let host = try #require(try usage("head.pem", certificates)), person = try #require(try usage("viewer.pem", certificates))
        #expect(host.isForServers && host.isForClients && !person.isForServers && person.isForClients)
        // Without one, it may be used for everything.
        let authority = try #require(try usage("ca.pem", certificates))
        #expect(authority.isForServers && authority.isForClients)
        try certificates.signItself("mail", usage: "emailProtection")
        let mail = try #require(try usage("mail.pem", certificates))
        #expect(!mail.isForServers && !mail.isForClients)
    }

    @Test(arguments: [[], [0], [0x30, 0x80], [UInt8](repeating: 0x30, count: 1000)])
    func otherBytesAreNoCertificate(bytes: [UInt8]) { #expect(CertificateUsage(der: bytes) == nil) }
}
