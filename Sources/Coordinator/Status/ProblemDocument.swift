import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore

/// The body of every answer that is an error: `{"error": {"message": TEXT}}`.
struct ProblemDocument: Encodable {
    struct Problem: Encodable { let message: String }

    let error: Problem
    private let status: HTTPResponse.Status
    private let headers: HTTPFields

    private enum CodingKeys: String, CodingKey { case error }

    init(_ error: HTTPError) {
        // Only the library throws without a text: where no path fits.
        self.error = Problem(message: error.body ?? "no such path; /openapi.json describes what is here")
        (status, headers) = (error.status, error.headers)
    }

    func response() throws -> Response {
        var headers = headers
        headers[.contentType] = "application/json; charset=utf-8"
        return Response(
            status: status, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: try statusJSON(self) + [0x0a]))
        )
    }
}
