import Foundation

/// An HTTPS request by openssl, the client that is there wherever `Certificates` can be made.
package struct SecureRequest {
    private let address: String
    private let options: [String]

    /// - Parameters:
    ///   - address: such as `127.0.0.1:7071`.
    ///   - authority: the PEM file that the server's certificate must be signed by.
    ///   - own: this side's certificate and key, as PEM files.
    package init(to address: String, authority: String, own: (certificate: String, key: String)? = nil) {
        self.address = address
        options =
            ["-CAfile", authority, "-verify_return_error", "-quiet"]
            + (own.map { ["-cert", $0.certificate, "-key", $0.key] } ?? [])
    }

    /// - Returns: the answer's status, and its body; 0 when there is no answer.
    package func get(_ path: String, headers: [String] = []) async throws -> (status: Int, body: String) {
        let directory = try TemporaryDirectory()
        let lines = ["GET \(path) HTTP/1.1", "Host: localhost", "Connection: close"] + headers + ["", ""]
        let request = try directory.write(lines.joined(separator: "\r\n"), to: "request"), process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["openssl", "s_client", "-connect", address] + options
        process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: request))
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: try directory.write("", to: "answer")))
        process.standardError = FileHandle.nullDevice
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            process.terminationHandler = { _ in continuation.resume() }
            do { try process.run() } catch { continuation.resume(throwing: error) }
        }
        let answer = String(decoding: try Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/answer")), as: UTF8.self)
        guard let end = answer.range(of: "\r\n\r\n"), let status = Int(answer.dropFirst(9).prefix(3)) else { return (0, answer) }
        return (status, String(answer[end.upperBound...]))
    }
}
