/// Shapes that come from a file or a peer.
package enum Shape {
    /// Elements of a tensor at most. Far above any model, and far enough below `Int.max` that bytes and sums of bytes cannot
    /// overflow.
    package static let elementLimit = 1 << 48

    /// The number of elements, or `nil` if a dimension is negative or the product is above `elementLimit`.
    ///
    /// Dimensions of 0 count as 1 for the limit, so that no product of some of the dimensions overflows either.
    package static func elementCount(_ shape: [Int]) -> Int? {
        var count = 1
        for dimension in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: max(1, dimension))
            guard dimension >= 0, !overflow, product <= elementLimit else { return nil }
            count = product
        }
        return shape.contains(0) ? 0 : count
    }

    /// The number of elements of a shape that was checked where it came in. Any other shape counts as `elementLimit` elements:
    /// what is computed with it does not overflow, and fails the next comparison.
    package static func count(_ shape: [Int]) -> Int { elementCount(shape) ?? elementLimit }
}

extension KeyedDecodingContainer {
    /// - Throws: `DecodingError` for a shape that `Shape.elementCount` refuses.
    package func decodeShape(forKey key: Key) throws -> [Int] {
        let shape = try decode([Int].self, forKey: key)
        guard Shape.elementCount(shape) != nil else {
            throw DecodingError.dataCorruptedError(
                forKey: key, in: self, debugDescription: "\(shape) is not the shape of a tensor")
        }
        return shape
    }

    /// - Throws: `DecodingError` for an integer outside `range`.
    package func decodeInteger(in range: ClosedRange<Int>, forKey key: Key) throws -> Int {
        let value = try decode(Int.self, forKey: key)
        guard range.contains(value) else {
            throw DecodingError.dataCorruptedError(forKey: key, in: self, debugDescription: "\(value) is not in \(range)")
        }
        return value
    }
}
