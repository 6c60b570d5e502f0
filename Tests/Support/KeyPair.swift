package import Foundation

/// A pair of keys to sign with, made by openssl.
package struct KeyPair {
    package let directory: TemporaryDirectory
    package var privateKey: String { "\(directory.path)/sign.key" }
    package var publicKey: String { "\(directory.path)/sign.pub" }

    /// - Parameter arguments: what `openssl genpkey` is given.
    package init(_ arguments: [String]) throws {
        directory = try TemporaryDirectory()
        try openssl(["genpkey"] + arguments + ["-out", privateKey])
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: privateKey)
        try openssl(["pkey", "-in", privateKey, "-passin", "pass:x", "-pubout", "-out", publicKey])
    }

    package init(curve: String = "P-256") throws {
        try self.init(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:\(curve)"])
    }
}

/// Runs openssl, and returns what it prints.
@discardableResult
package func openssl(_ arguments: [String]) throws -> Data {
    let process = Process(), output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["openssl"] + arguments
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let printed = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw CocoaError(.executableLoad) }
    return printed
}
