/// Reads JSON strictly and in one pass, for files that may be hostile.
///
/// Unlike a decoder, the scanner rejects duplicate keys, keeps only what the caller asks for, and reports the byte of an error.
package struct JSONScanner {
    private let bytes: [UInt8]
    private let file: String?
    /// The offset of the next byte.
    package private(set) var position: Int

    /// Deep enough for any real file, shallow enough for any stack.
    private static let depthLimit = 64
    private static let elementsPerCheck = 256
    private var depth = 0

    /// - Parameter start: the offset of the first byte to read.
    package init(_ bytes: [UInt8], file: String?, from start: Int = 0) {
        self.bytes = bytes
        self.file = file
        position = start
    }

    package func error(_ problem: String) -> TesseraError {
        TesseraError(.badData, "byte \(position) of the JSON: \(problem)", file: file)
    }

    // MARK: Structure

    /// Calls `member` with each key of the object. The callback must consume the value.
    package mutating func object(_ member: (inout JSONScanner, String) throws(TesseraError) -> Void) throws(TesseraError) {
        var keys = KeySet()
        try elements(from: "{", to: "}") { scanner throws(TesseraError) in
            let key = try scanner.string()
            guard keys.insert(ExactText(key)) else { throw scanner.error("duplicate key '\(key)'") }
            try scanner.expect(":")
            try member(&scanner, key)
        }
    }

    /// Calls `element` for each element of the array. The callback must consume the element.
    package mutating func array(_ element: (inout JSONScanner) throws(TesseraError) -> Void) throws(TesseraError) {
        try elements(from: "[", to: "]", element)
    }

    private mutating func elements(
        from opening: Unicode.Scalar, to closing: Unicode.Scalar, _ element: (inout JSONScanner) throws(TesseraError) -> Void
    ) throws(TesseraError) {
        try expect(opening)
        depth += 1
        guard depth <= Self.depthLimit else { throw error("nested more than \(Self.depthLimit) levels deep") }
        defer { depth -= 1 }
        if takes(closing) { return }
        var count = 0
        while true {
            // A file may be scanned once for each of its entries.
            if count % Self.elementsPerCheck == 0, depth == 1 || count > 0 { try Effort.spend() }
            count += 1
            try element(&self)
            if takes(closing) { return }
            try expect(",")
        }
    }

    package mutating func expect(_ scalar: Unicode.Scalar) throws(TesseraError) {
        guard takes(scalar) else { throw error("expected '\(scalar)', found \(found)") }
    }

    /// Skips white space and consumes the next byte if it is `scalar`.
    private mutating func takes(_ scalar: Unicode.Scalar) -> Bool {
        skipSpace()
        guard position < bytes.count, bytes[position] == UInt8(ascii: scalar) else { return false }
        position += 1
        return true
    }

    package mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0a, 0x0d: position += 1
            default: return
            }
        }
    }

    /// The next byte after white space, without consuming it; `nil` at the end.
    package mutating func peek() -> UInt8? {
        skipSpace()
        return position < bytes.count ? bytes[position] : nil
    }

    /// The consumed bytes of `range`, unchanged.
    package func bytes(of range: Range<Int>) -> [UInt8] { Array(bytes[range]) }

    package var isAtEnd: Bool { position == bytes.count }

    private var found: String {
        guard position < bytes.count else { return "the end" }
        let byte = bytes[position]
        return (0x21...0x7e).contains(byte) ? "'\(Unicode.Scalar(byte))'" : "byte 0x\(String(byte, radix: 16))"
    }

    // MARK: Values

    /// Consumes any value and returns the range of its bytes.
    @discardableResult
    package mutating func value() throws(TesseraError) -> Range<Int> {
        skipSpace()
        let start = position
        guard position < bytes.count else { throw error("expected a value, found the end") }
        switch bytes[position] {
        case UInt8(ascii: "{"): try object { scanner, _ throws(TesseraError) in try scanner.value() }
        case UInt8(ascii: "["): try array { scanner throws(TesseraError) in try scanner.value() }
        case UInt8(ascii: "\""): _ = try string()
        default: try literal()
        }
        return start..<position
    }

    /// A number, `true`, `false` or `null`. Python's `NaN` and `Infinity` are let pass: its config files hold them.
    private mutating func literal() throws(TesseraError) {
        let start = position
        while position < bytes.count, Self.isLiteralByte(bytes[position]) { position += 1 }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        let isNumber = text.utf8.first.map { $0 == UInt8(ascii: "-") || Self.isDigit($0) } == true && Double(text) != nil
        guard isNumber || ["true", "false", "null", "NaN", "Infinity", "-Infinity"].contains(text) else {
            position = start
            throw error("expected a value, found \(found)")
        }
    }

    package mutating func flag() throws(TesseraError) -> Bool {
        let range = try value()
        guard let flag = Bool(String(decoding: bytes[range], as: UTF8.self)) else { throw error("expected true or false") }
        return flag
    }

    /// A finite number.
    package mutating func number() throws(TesseraError) -> Double {
        let range = try value()
        guard let number = Double(String(decoding: bytes[range], as: UTF8.self)), number.isFinite else {
            throw error("expected a finite number")
        }
        return number
    }

    /// A number without sign, fraction or exponent.
    package mutating func natural() throws(TesseraError) -> Int {
        skipSpace()
        let start = position
        var value = 0
        while position < bytes.count, Self.isDigit(bytes[position]) {
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = scaled.addingReportingOverflow(Int(bytes[position] - UInt8(ascii: "0")))
            guard !overflow, !carry else { throw error("the number is too large") }
            value = sum
            position += 1
        }
        guard position > start else { throw error("expected a non-negative integer, found \(found)") }
        guard position == bytes.count || !Self.isLiteralByte(bytes[position]) else {
            throw error("expected a non-negative integer")
        }
        return value
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    private static func isLiteralByte(_ byte: UInt8) -> Bool {
        isDigit(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
            || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            || [UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: ".")].contains(byte)
    }

    package mutating func string() throws(TesseraError) -> String {
        try expect("\"")
        // Nearly every string of a vocabulary is plain to its end.
        let start = position
        position = endOfPlainText
        if position < bytes.count, bytes[position] == UInt8(ascii: "\"") {
            position += 1
            guard let string = text(start..<position - 1) else { throw error("string is not valid UTF-8") }
            return string
        }
        return try string(after: Array(bytes[start..<position]))
    }

    private func text(_ range: Range<Int>) -> String? {
        bytes.withUnsafeBufferPointer { bytes in
            let text = UnsafeBufferPointer(rebasing: bytes[range])
            // Names in headers are ASCII, which has nothing to validate.
            return text.allSatisfy { $0 < 0x80 } ? String(decoding: text, as: UTF8.self) : String(validating: text, as: UTF8.self)
        }
    }

    /// Where the next quote, backslash or control character stands, found eight bytes at a time; else at most seven bytes from
    /// the end.
    private var endOfPlainText: Int {
        bytes.withUnsafeBytes { bytes in
            let ones: UInt64 = 0x0101_0101_0101_0101
            var index = position
            while index + 8 <= bytes.count {
                let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                let quote = word ^ (ones &* 0x22), backslash = word ^ (ones &* 0x5c)
                // The top bit of the lowest byte that is one of the three; bits above it may be wrong.
                let found =
                    ((quote &- ones) & ~quote | (backslash &- ones) & ~backslash | (word &- ones &* 0x20) & ~word) & (ones << 7)
                if found != 0 { return index + found.trailingZeroBitCount / 8 }
                index += 8
            }
            return index
        }
    }

    /// The rest of a string of which `plain` has been read.
    private mutating func string(after plain: [UInt8]) throws(TesseraError) -> String {
        var text = plain
        while true {
            guard position < bytes.count else { throw error("unterminated string") }
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: text, as: UTF8.self) else { throw error("string is not valid UTF-8") }
                return string
            case UInt8(ascii: "\\"): try escape(into: &text)
            case ..<0x20: throw error("unescaped control character in a string")
            default: text.append(byte)
            }
        }
    }

    private mutating func escape(into text: inout [UInt8]) throws(TesseraError) {
        guard position < bytes.count else { throw error("unterminated string") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0c)
        case UInt8(ascii: "n"): text.append(0x0a)
        case UInt8(ascii: "r"): text.append(0x0d)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexUnit()
            if (0xd800..<0xdc00).contains(code) {
                guard position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u")
                else {
                    throw error("unpaired surrogate")
                }
                position += 2
                let low = try hexUnit()
                guard (0xdc00..<0xe000).contains(low) else { throw error("unpaired surrogate") }
                code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw error("unpaired surrogate") }
            text.append(contentsOf: String(Character(scalar)).utf8)
        default: throw error("unknown escape sequence in a string")
        }
    }

    private mutating func hexUnit() throws(TesseraError) -> UInt32 {
        guard position + 4 <= bytes.count,
            let unit = UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16),
            bytes[position] != UInt8(ascii: "+")
        else { throw error("expected four hexadecimal digits after \\u") }
        position += 4
        return unit
    }
}

/// The keys of an object. Most objects have few, and files have many such objects: those are searched one by one.
private struct KeySet {
    private var few: [ExactText] = []
    private var many: Set<ExactText> = []

    /// - Returns: whether the key is new.
    mutating func insert(_ key: ExactText) -> Bool {
        if few.count == 8 {
            many = Set(few)
            few = []
        }
        guard many.isEmpty else { return many.insert(key).inserted }
        guard !few.contains(key) else { return false }
        if few.isEmpty { few.reserveCapacity(4) }
        few.append(key)
        return true
    }
}
