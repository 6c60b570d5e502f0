/// Everything that is wrong with a request, reported together so that it can be fixed in one go.
package struct Problems: Error, Sendable, Hashable, Codable {
    /// Never empty.
    package let all: [TesseraError]

    package init(_ all: [TesseraError]) { self.all = all }

    /// The exit code of the first problem.
    package var exitCode: Int32 { (all.first?.code ?? .internal).exitCode }
}

extension Problems: CustomStringConvertible {
    package var description: String { all.map(\.description).joined(separator: "\n") }
}
