package import Core
import Glibc

/// Copies a tensor of a type without arithmetic (integers, booleans, packed types) after checking that it is the same in all
/// models.
///
/// The planner uses it in place of the recipe's method (mergekit-compatible).
package struct Identical: MergeMethod {
    package static let name = "identical"
    package static let summary = "Copies a tensor that must be the same in all models."
    package static let inputs = InputContract(base: .plainInput, models: 1...Int.max)
    package static let parameters: [Parameter] = []

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {}

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 2) }

    package func merge(_ tensor: TensorPasses) throws {
        for (index, source) in tensor.sources.enumerated().dropFirst() {
            if let byte = try tensor.sources[0].firstDifference(from: source) {
                throw TesseraError(
                    .badData,
                    "holds \(source.dtype.rawValue) values, which cannot be averaged, "
                        + "and model \(index + 1) differs from model 1 at byte \(byte)",
                    advice: "only tensors of a floating type may differ between the models of a merge")
            }
        }
        try tensor.emitBytes(ofSource: 0)
    }
}

extension ElementSource {
    /// The first byte at which two tensors of the same type and length differ.
    fileprivate func firstDifference(from other: any ElementSource) throws -> Int? {
        let length = count * dtype.bitWidth / 8
        let piece = 1 << 20
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * piece, alignment: 64)
        defer { buffer.deallocate() }
        guard let first = buffer.baseAddress else { return nil }
        let second = first + piece
        for start in stride(from: 0, to: length, by: piece) {
            let range = start..<min(length, start + piece)
            try copyBytes(range, to: first)
            try other.copyBytes(range, to: second)
            if memcmp(first, second, range.count) != 0 {
                return (0..<range.count).first { buffer[$0] != buffer[piece + $0] }.map { start + $0 }
            }
        }
        return nil
    }
}
