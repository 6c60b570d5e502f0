/// A YAML scalar as PyYAML's safe loader (YAML 1.1) reads it, so that a mergekit recipe means the same here.
package enum ScalarValue: Sendable, Hashable {
    case null
    case flag(Bool)
    case integer(Int)
    case number(Double)
    case string(String)

    /// The meaning of a plain (unquoted) scalar.
    package init(plain text: String) {
        if let flag = Self.flag(text) {
            self = .flag(flag)
        } else if ["", "~", "null", "Null", "NULL"].contains(text) {
            self = .null
        } else if let integer = Self.integer(text) {
            self = .integer(integer)
        } else if let number = Self.number(text) {
            self = .number(number)
        } else {
            self = .string(text)
        }
    }

    // MARK: As a parameter's type

    /// Numbers, and what Python's `float` accepts: booleans and numeric strings such as `1e-5`, which YAML 1.1 reads as text.
    package var asDouble: Double? {
        switch self {
        case .null: nil
        case .flag(let flag): flag ? 1 : 0
        case .integer(let integer): Double(integer)
        case .number(let number): number
        case .string(let text): Double(text)
        }
    }

    /// `true`, `false`, and 0 or 1 in any spelling.
    package var asBool: Bool? {
        switch self {
        case .null: nil
        case .flag(let flag): flag
        case .integer, .number: asDouble == 1 ? true : asDouble == 0 ? false : nil
        case .string(let text): Self.flag(text)
        }
    }

    // MARK: YAML 1.1

    private static func flag(_ text: String) -> Bool? {
        switch text {
        case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON": true
        case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF": false
        default: nil
        }
    }

    /// Decimal, `0b`, `0x`, octal by a leading zero, and base 60 (`1:30`); underscores are ignored.
    private static func integer(_ text: String) -> Int? {
        let (sign, digits) = split(text)
        guard let first = digits.first, first.isASCII, first.isNumber else { return nil }
        let plain = digits.replacing("_", with: "")
        let magnitude: Int? =
            if plain == "0" {
                0
            } else if plain.hasPrefix("0b") {
                Int(plain.dropFirst(2), radix: 2)
            } else if plain.hasPrefix("0x") {
                Int(plain.dropFirst(2), radix: 16)
            } else if plain.hasPrefix("0") {
                Int(plain, radix: 8)
            } else if plain.contains(":") {
                baseSixty(plain).flatMap { Int(exactly: $0) }
            } else {
                Int(plain)
            }
        return magnitude.map { sign * $0 }
    }

    /// A dot is required, as are a digit before it after a sign, and a sign in the exponent.
    private static func number(_ text: String) -> Double? {
        let (sign, digits) = split(text)
        if [".inf", ".Inf", ".INF"].contains(digits) { return Double(sign) * .infinity }
        if [".nan", ".NaN", ".NAN"].contains(text) { return .nan }
        let plain = digits.replacing("_", with: "")
        guard plain.contains("."), let first = plain.utf8.first, isDigit(first) || text.hasPrefix(".") else { return nil }
        if plain.contains(":") { return baseSixty(plain).map { Double(sign) * $0 } }
        let parts = plain.lowercased().split(separator: "e", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts[0].utf8.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: ".") }) else { return nil }
        if parts.count == 2 {
            guard let mark = parts[1].first, mark == "+" || mark == "-" else { return nil }
        }
        let padded = parts[0].hasSuffix(".") ? "\(parts[0])0" : String(parts[0])
        return Double(padded + (parts.count == 2 ? "e\(parts[1])" : "")).map { Double(sign) * $0 }
    }

    private static func baseSixty(_ text: String) -> Double? {
        var value = 0.0
        for (index, part) in text.split(separator: ":", omittingEmptySubsequences: false).enumerated() {
            guard let digit = Double(part), part.first?.isNumber == true, index == 0 || digit < 60 else { return nil }
            value = value * 60 + digit
        }
        return value
    }

    private static func split(_ text: String) -> (sign: Int, digits: String) {
        switch text.first {
        case "-": (-1, String(text.dropFirst()))
        case "+": (1, String(text.dropFirst()))
        default: (1, text)
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}

extension ScalarValue {
    /// The value as shown in messages: text in quotes, anything else as it is.
    package var shown: String { if case .string(let text) = self { "'\(text)'" } else { description } }
}

extension ScalarValue: CustomStringConvertible {
    package var description: String {
        switch self {
        case .null: "null"
        case .flag(let flag): "\(flag)"
        case .integer(let integer): "\(integer)"
        case .number(let number): "\(number)"
        case .string(let text): text
        }
    }
}
