import Glibc

/// Text that equals only what is written with the same bytes.
///
/// A `String` also equals other spellings of the same characters (`é` as one scalar or as two). To a vocabulary they are
/// different tokens, with rows of their own.
package struct ExactText: Sendable {
    package let string: String

    package init(_ string: String) { self.string = string }
}

extension ExactText: Hashable {
    package static func == (left: ExactText, right: ExactText) -> Bool {
        guard left.string.utf8.count == right.string.utf8.count else { return false }
        return left.withBytes { first in
            right.withBytes { second in
                guard let first = first.baseAddress, let second = second.baseAddress else { return true }
                return memcmp(first, second, left.string.utf8.count) == 0
            }
        }
    }

    package func hash(into hasher: inout Hasher) { withBytes { hasher.combine(bytes: UnsafeRawBufferPointer($0)) } }

    private func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        if let result = string.utf8.withContiguousStorageIfAvailable(body) { return result }
        return Array(string.utf8).withUnsafeBufferPointer(body)
    }
}

extension ExactText: Comparable {
    /// By bytes, and so by scalars.
    package static func < (left: ExactText, right: ExactText) -> Bool {
        left.string.utf8.lexicographicallyPrecedes(right.string.utf8)
    }
}

extension ExactText: ExpressibleByStringLiteral {
    package init(stringLiteral value: String) { self.init(value) }
}

extension ExactText: CustomStringConvertible {
    package var description: String { string }
}
