/// What went wrong, where, and how to fix it. The only error type that users see.
///
/// Sent over the wire unchanged, so that a worker's error reads the same in the submitter's terminal.
package struct TesseraError: Error, Sendable, Hashable, Codable {
    /// The kind of failure. Determines the exit code and whether a retry can help.
    package enum Code: String, Sendable, Hashable, Codable, CaseIterable {
        case difference, usage, badData, inputMissing, unreachable, `internal`, cannotCreate, io, temporary, protocolMismatch
        case notAllowed, cancelled

        /// The process exit code, following sysexits.h.
        package var exitCode: Int32 {
            switch self {
            case .difference: 1
            case .usage: 64
            case .badData: 65
            case .inputMissing: 66
            case .unreachable: 69
            case .internal: 70
            case .cannotCreate: 73
            case .io: 74
            case .temporary: 75
            case .protocolMismatch: 76
            case .notAllowed: 77
            case .cancelled: 130
            }
        }

        /// Whether the same work may succeed in another attempt or on another host.
        package var isTransient: Bool {
            switch self {
            case .unreachable, .io, .temporary, .inputMissing: true
            default: false
            }
        }
    }

    package var code: Code
    /// What is wrong: a clause without a final full stop.
    package var problem: String
    package var file: String?
    package var tensor: String?
    /// The line in `file`, counted from 1.
    package var line: Int?
    /// How to fix it: a clause without a final full stop.
    package var advice: String?

    package init(
        _ code: Code, _ problem: String, file: String? = nil, line: Int? = nil, tensor: String? = nil, advice: String? = nil
    ) {
        self.code = code
        self.problem = problem
        self.file = file
        self.line = line
        self.tensor = tensor
        self.advice = advice
    }
}

extension TesseraError: CustomStringConvertible {
    /// One line, control characters escaped: `recipe.yml:4: unknown method 'tise' — did you mean 'ties'?`
    package var description: String {
        var text = ""
        if let file { text += line.map { "\(file):\($0): " } ?? "\(file): " }
        if let tensor { text += "tensor '\(tensor)': " }
        text += problem
        if let advice { text += " — \(advice)" }
        return text.printable
    }
}
