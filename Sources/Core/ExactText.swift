import Glibc

/// Text compared byte by byte.
///
/// A `String` equals other encodings of the same characters (`é` as one scalar or as two). To a vocabulary these are different
/// tokens with different rows.
package struct ExactText: Sendable {
    package let string: String

    package init(_ string: String) { self.string = string }
}

extension ExactText: Hashable {
    package static func == (left: ExactText, right: ExactText) -> Bool {
        guard left.string.utf8.count == right.string.utf8.count else { return false }
        return left.string.withUTF8Bytes { first in
            right.string.withUTF8Bytes { second in
                guard let first = first.baseAddress, let second = second.baseAddress else { return true }
                return memcmp(first, second, left.string.utf8.count) == 0
            }
        }
    }

    package func hash(into hasher: inout Hasher) {
        string.withUTF8Bytes { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
}

extension ExactText: Comparable {
    /// Byte order, which is also scalar order.
    package static func < (left: ExactText, right: ExactText) -> Bool {
        left.string.precedesInBytes(right.string)
    }
}

extension ExactText: ExpressibleByStringLiteral {
    package init(stringLiteral value: String) { self.init(value) }
}

extension ExactText: CustomStringConvertible {
    package var description: String { string }
}
