/// Where the lines of a text come from that was made of a user's file and of values on the command line: messages about the text
/// name what the user wrote.
package struct LineOrigins: Sendable, Hashable, Codable {
    /// For each line of the text, the line in the user's file, from 1; or -i for what the `i`th value on the command line put
    /// there.
    package let lines: [Int]
    /// The values as the user gave them, such as `--set parameters.lambda=0.3`.
    package let settings: [String]

    package init(lines: [Int], settings: [String]) {
        self.lines = lines
        self.settings = settings
    }

    /// Whether a value on the command line put the line there that the error is about.
    package func isSetting(_ error: TesseraError, in file: String) -> Bool {
        guard error.file == file, let line = error.line, lines.indices.contains(line - 1) else { return false }
        return lines[line - 1] < 0
    }

    /// The error, placed where the user wrote what is wrong.
    ///
    /// - Parameters:
    ///   - error: of any file.
    ///   - file: what errors about the text call it.
    package func located(_ error: TesseraError, in file: String) -> TesseraError {
        guard error.file == file, let line = error.line, (1...max(1, lines.count)).contains(line), !lines.isEmpty else {
            return error
        }
        var located = error
        let origin = lines[line - 1]
        if origin > 0 {
            located.line = origin
        } else if origin < 0, origin >= -settings.count {
            located.file = settings[-origin - 1]
            located.line = nil
        }
        return located
    }
}
