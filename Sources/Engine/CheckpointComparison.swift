package import Checkpoints
package import Core
import TensorKernels

/// The differences between two checkpoints.
package struct CheckpointComparison {
    package struct Difference: Encodable {
        package let tensor: String
        package let description: String
        /// The number of elements that differ (bytes, for types without arithmetic).
        package var elements: Int?
        /// The largest absolute difference of two elements; `nil` if it is not finite.
        package var largest: Double?
        /// `‖x − y‖ / ‖x‖`; `nil` if it is not finite.
        package var relative: Double?
    }

    package let tensors: Int
    package let differences: [Difference]

    package init(_ first: Checkpoint, _ second: Checkpoint, in files: any InputFiles) throws {
        let names = first.tensorNames.mergedByBytes(second.tensorNames)
        tensors = names.count
        differences = try names.compactMap { name in
            guard let left = first.tensor(named: name) else { return Difference(tensor: name, description: "only in the second") }
            guard let right = second.tensor(named: name) else {
                return Difference(tensor: name, description: "only in the first")
            }
            guard left.entry.dtype == right.entry.dtype, left.entry.shape == right.entry.shape else {
                return Difference(
                    tensor: name,
                    description:
                        "\(left.entry.dtype.rawValue) \(left.entry.shape) and \(right.entry.dtype.rawValue) \(right.entry.shape)")
            }
            return try Self.difference(
                name, left.entry, try files.open("\(first.directory)/\(first.parts[left.part].fileName)"), right.entry,
                try files.open("\(second.directory)/\(second.parts[right.part].fileName)"))
        }
    }

    private static func difference(
        _ name: String, _ left: TensorEntry, _ leftBytes: any ByteSource, _ right: TensorEntry, _ rightBytes: any ByteSource
    ) throws -> Difference? {
        let piece = 1 << 20
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * piece, alignment: 64)
        defer { scratch.deallocate() }
        let leftScratch = UnsafeMutableRawBufferPointer(rebasing: scratch[..<piece])
        let rightScratch = UnsafeMutableRawBufferPointer(rebasing: scratch[piece...])
        var tally = Tally()
        for start in stride(from: 0, to: left.byteCount, by: piece) {
            let count = min(piece, left.byteCount - start)
            try leftBytes.withBytes(left.range.lowerBound + start..<left.range.lowerBound + start + count, scratch: leftScratch) {
                x in
                try rightBytes.withBytes(
                    right.range.lowerBound + start..<right.range.lowerBound + start + count, scratch: rightScratch
                ) { y in
                    tally.add(x, y, left.dtype)
                }
            }
        }
        guard tally.differing > 0 else { return nil }
        guard left.dtype.isArithmetic else {
            return Difference(tensor: name, description: "\(tally.differing) bytes differ", elements: tally.differing)
        }
        let ratio = (tally.distance / tally.norm).squareRoot(), relative = ratio.isFinite ? ratio : nil
        let share = relative.map { ", \($0 < 1e10 ? Quantity.decimal($0 * 100, places: 4) : "\($0 * 100)") % of the norm" } ?? ""
        return Difference(
            tensor: name,
            description: "\(tally.differing) of \(left.elementCount) elements, by at most \(tally.largest)\(share)",
            elements: tally.differing, largest: tally.largest.isFinite ? tally.largest : nil, relative: relative)
    }

    private struct Tally {
        var differing = 0
        var largest = 0.0
        var distance = 0.0
        var norm = 0.0

        mutating func add(_ x: UnsafeRawBufferPointer, _ y: UnsafeRawBufferPointer, _ dtype: DType) {
            guard dtype.isArithmetic else {
                differing += zip(x, y).reduce(0) { $0 + ($1.0 == $1.1 ? 0 : 1) }
                return
            }
            for (a, b) in zip(Self.values(x, dtype), Self.values(y, dtype)) {
                norm += a * a
                guard a.bitPattern != b.bitPattern else { continue }
                let gap = (a - b).magnitude
                differing += 1
                largest = gap.isNaN ? .nan : max(largest, gap)
                distance += gap * gap
            }
        }

        private static func values(_ bytes: UnsafeRawBufferPointer, _ dtype: DType) -> [Double] {
            let width = dtype.bitWidth / 8
            guard dtype != .f64 else {
                return stride(from: 0, to: bytes.count, by: width).map {
                    bytes.loadUnaligned(fromByteOffset: $0, as: Double.self)
                }
            }
            var values = [Float](repeating: 0, count: bytes.count / width)
            if let first = bytes.baseAddress { Kernels.best.widen(dtype, first, &values, count: values.count) }
            return values.map(Double.init)
        }
    }
}
