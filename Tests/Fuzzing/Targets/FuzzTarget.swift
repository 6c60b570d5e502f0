import Core
import Protocol

/// Something that reads bytes from outside.
///
/// It may refuse them with an error of ours. A trap, another error, an error that blames Tessera itself, and a promise that does
/// not hold end the process.
package struct FuzzTarget: Sendable {
    package let name: String
    private let body: @Sendable ([UInt8]) throws -> Void

    init(_ name: String, _ body: @escaping @Sendable ([UInt8]) throws -> Void) {
        self.name = name
        self.body = body
    }

    package static let all = [
        header, checkpoint, manifest, signature, recipe, overrides, plan, adapter, tokenizer, store, settings, tokens, frames,
        messages, status,
    ]

    package func run(_ input: [UInt8]) {
        do {
            try body(input)
        } catch let problems as Problems {
            for error in problems.all { Self.check(error) }
        } catch let error as TesseraError {
            Self.check(error)
        } catch is FrameError {
        } catch {
            preconditionFailure("an error that is none of ours: \(error)")
        }
    }

    private static func check(_ error: TesseraError) {
        precondition(error.code != .internal, "\(error)")
        precondition(!"\(error)".utf8.contains { $0 < 0x20 || $0 == 0x7f }, "an error with control characters")
    }
}

/// Inputs of several files have a line of this text between each two. No input holds it by chance.
private let separator = Array("\n%%%%\n".utf8)

/// The parts of an input of several files; parts that the input lacks are empty.
func sections(_ input: [UInt8], _ count: Int) -> [[UInt8]] {
    var parts: [[UInt8]] = [], part: [UInt8] = [], position = 0
    while position < input.count {
        if parts.count < count - 1, input[position] == separator[0], input[position...].starts(with: separator) {
            parts.append(part)
            part = []
            position += separator.count
        } else {
            part.append(input[position])
            position += 1
        }
    }
    parts.append(part)
    return parts + Array(repeating: [], count: count - parts.count)
}
