import Foundation

/// Certificates made by Deploy/tls.
package struct Certificates {
    package let directory: TemporaryDirectory

    /// - Parameter days: how long the certificates are valid; negative for expired ones.
    package init(hosts: [String] = ["127.0.0.1"], days: Int = 2, authority: Certificates? = nil) throws {
        directory = try TemporaryDirectory()
        if let authority {
            for name in ["ca.pem", "ca.key"] {
                try FileManager.default.copyItem(atPath: authority.path(name), toPath: "\(directory.path)/\(name)")
            }
        }
        try add(hosts, days: days)
    }

    /// Runs Deploy/tls once more.
    package func add(_ hosts: [String], days: Int = 2) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "\(Repository.root)/Deploy/tls")
        process.arguments = [directory.path] + hosts
        process.environment = ProcessInfo.processInfo.environment.merging(["TESSERA_TLS_DAYS": "\(days)"]) { $1 }
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw CocoaError(.executableLoad) }
    }

    /// Makes NAME.pem and NAME.key, with this extended key usage alone.
    package func signItself(_ name: String, usage: String) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments =
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            + ["-keyout", path("\(name).key"), "-out", path("\(name).pem"), "-subj", "/CN=\(name)"]
            + ["-addext", "extendedKeyUsage=\(usage)"]
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw CocoaError(.executableLoad) }
    }

    package func path(_ name: String) -> String { "\(directory.path)/\(name)" }
}
