/// A map is one string: base64 of integers in 7-bit groups, lowest first. Long runs are short, permutations bearable.
///
/// ```
/// map  = run*                                   until the bytes end
/// run  = tag row? rows? count?
/// tag  = kind | isSingle << 2 | source << 3     kind: 0 stored, 1 mean, 2 zero, 3 padding; source for `stored` only
/// row  = first row − where the last run of that source ended, zigzag    (stored)
/// rows = n, then n × (source, row)              (mean)
/// count                                         unless isSingle
/// ```
extension RowMap: Codable {
    /// Far above any vocabulary, and low enough that nothing overflows.
    static let rowLimit = 1 << 28
    private static let sourceLimit = 1 << 10

    private enum Kind: Int {
        case stored, mean, zero, padding
    }

    package func encode(to encoder: any Encoder) throws {
        var writer = VarintWriter()
        var ends: [Int: Int] = [:]
        func write(_ row: SourceRow, count: Int) {
            writer.write(signed: row.row - (ends[row.source] ?? 0))
            ends[row.source] = row.row + count
        }
        for run in runs {
            let count = run.rows.count, single = count == 1 ? 1 << 2 : 0
            switch run.origin {
            case .stored(let row):
                writer.write(Kind.stored.rawValue | single | row.source << 3)
                write(row, count: count)
            case .mean(let rows):
                writer.write(Kind.mean.rawValue | single)
                writer.write(rows.count)
                for row in rows {
                    writer.write(row.source)
                    write(row, count: count)
                }
            case .zero: writer.write(Kind.zero.rawValue | single)
            case .padding: writer.write(Kind.padding.rawValue | single)
            }
            if count != 1 { writer.write(count) }
        }
        var container = encoder.singleValueContainer()
        try container.encode(Base64.encode(writer.bytes))
    }

    /// - Throws: `DecodingError` for anything but a map. Every number in a decoded map is bounded.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let map = Self.read(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a row map")
        }
        self = map
    }

    private static func read(_ text: String) -> RowMap? {
        guard let bytes = Base64.decode(text) else { return nil }
        var reader = VarintReader(bytes)
        var map = RowMap()
        var ends: [Int: Int] = [:]
        while !reader.isAtEnd {
            guard let tag = reader.read(), let kind = Kind(rawValue: tag & 3), let rows = readRows(kind, tag >> 3, &reader, ends),
                let count = tag & 1 << 2 != 0 ? 1 : reader.read(), count > 0, count <= rowLimit - map.rowCount
            else { return nil }
            for row in rows {
                guard row.row >= 0, row.row <= rowLimit else { return nil }
                ends[row.source] = row.row + count
            }
            switch kind {
            case .stored: map.append(.stored(rows[0]), count: count)
            case .mean: map.append(.mean(rows), count: count)
            case .zero: map.append(.zero, count: count)
            case .padding: map.append(.padding, count: count)
            }
        }
        return map
    }

    /// The first row of a run in each matrix; at least one for `stored` and `mean`.
    private static func readRows(_ kind: Kind, _ source: Int, _ reader: inout VarintReader, _ ends: [Int: Int]) -> [SourceRow]? {
        func row(of source: Int) -> SourceRow? {
            guard source < sourceLimit, let step = reader.readSigned(), abs(step) <= 2 * rowLimit else { return nil }
            return SourceRow(source: source, row: (ends[source] ?? 0) + step)
        }
        switch kind {
        case .stored: return row(of: source).map { [$0] }
        case .mean:
            guard let count = reader.read(), (1..<sourceLimit).contains(count) else { return nil }
            var rows: [SourceRow] = []
            for _ in 0..<count {
                guard let source = reader.read(), let row = row(of: source), !rows.contains(where: { $0.source == source }) else {
                    return nil
                }
                rows.append(row)
            }
            return rows
        case .zero, .padding: return []
        }
    }
}

/// Integers in groups of seven bits, lowest first; the top bit is set in all but the last.
private struct VarintWriter {
    private(set) var bytes: [UInt8] = []

    mutating func write(_ value: Int) {
        var rest = UInt(bitPattern: value)
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    /// Small magnitudes of either sign become small numbers: 0, −1, 1, −2 …
    mutating func write(signed value: Int) { write(value << 1 ^ value >> (Int.bitWidth - 1)) }
}

private struct VarintReader {
    private let bytes: [UInt8]
    private var position = 0
    /// Bits of the largest number that is read; far more than is ever written.
    private static let bitLimit = 49

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { position == bytes.count }

    mutating func read() -> Int? {
        var value = 0
        for shift in stride(from: 0, to: Self.bitLimit, by: 7) {
            guard position < bytes.count else { return nil }
            let byte = bytes[position]
            position += 1
            value |= Int(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return value }
        }
        return nil
    }

    mutating func readSigned() -> Int? { read().map { $0 >> 1 ^ -($0 & 1) } }
}

/// RFC 4648, section 4, without padding: this module imports no Foundation.
private enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    /// The sextet of each byte; above 63 for bytes that are not in the alphabet.
    private static let values: [UInt32] = (0...UInt8.max).map { byte in alphabet.firstIndex(of: byte).map(UInt32.init) ?? 64 }

    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 4 / 3 + 3)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(bytes.count, start + 3)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for sextet in 0...group.count { text.append(alphabet[Int(bits >> UInt32(18 - 6 * sextet) & 0x3f)]) }
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func decode(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count * 3 / 4)
        var bits: UInt32 = 0, count = 0
        for byte in text.utf8 {
            let value = values[Int(byte)]
            guard value < 64 else { return nil }
            bits = (bits << 6 | value) & 0xffff
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        // Left-over bits are fewer than a byte, and zero.
        return count < 6 && bits & (1 << UInt32(count) - 1) == 0 ? bytes : nil
    }
}
