/// Everything that is wrong with a request, reported together so that it can be fixed in one go.
package struct Problems: Error, Sendable, Hashable, Codable {
    /// Never empty.
    package let all: [TesseraError]

    package init(_ all: [TesseraError]) { self.all = all }

    /// The problems in the order of a file's lines; those about no line of the file follow as they were.
    package func byLine(of file: String) -> [TesseraError] {
        func line(_ error: TesseraError) -> Int { error.file == file ? error.line ?? .max : .max }
        return all.enumerated().sorted { (line($0.element), $0.offset) < (line($1.element), $1.offset) }.map(\.element)
    }

    /// The exit code of the first problem.
    package var exitCode: Int32 { (all.first?.code ?? .internal).exitCode }
}

extension Problems: CustomStringConvertible {
    package var description: String { all.map(\.description).joined(separator: "\n") }
}
