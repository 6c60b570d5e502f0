import CStatusPage
import Core
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// The page for browsers: one HTML file with its styles and its script inside.
enum StatusPage {
    /// OpenAPI's description of what the port answers to programs.
    static func description() -> Response {
        let text = String(cString: status_description())
        return Response(
            status: .ok, headers: [.contentType: "application/json; charset=utf-8", .cacheControl: "no-cache"],
            body: .init(byteBuffer: ByteBuffer(string: text)))
    }

    private static let text = String(cString: status_page())

    /// Holds nothing about jobs: the page asks for that as any client does.
    static func response() throws -> Response {
        var headers: HTTPFields = [
            .contentType: "text/html; charset=utf-8", .cacheControl: "no-cache", .contentSecurityPolicy: try policy(of: text),
            .xContentTypeOptions: "nosniff",
        ]
        if let name = HTTPField.Name("Referrer-Policy") { headers[name] = "no-referrer" }
        if let name = HTTPField.Name("Cross-Origin-Opener-Policy") { headers[name] = "same-origin" }
        return Response(status: .ok, headers: headers, body: .init(byteBuffer: ByteBuffer(string: text)))
    }

    /// Lets the page run its own script, use its own styles, and ask the port that it came from: nothing else (CSP level 3).
    static func policy(of page: String) throws -> String {
        func source(_ element: String) throws -> String {
            guard let start = page.range(of: "<\(element)>"), let end = page.range(of: "</\(element)>") else { return "'none'" }
            let digest = try Digest.sha256(of: Array(page[start.upperBound..<end.lowerBound].utf8))
            return "'sha256-\(Data(digest.bytes).base64EncodedString())'"
        }
        return """
            default-src 'none'; script-src \(try source("script")); style-src \(try source("style")); connect-src 'self'; \
            img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'
            """
    }
}
