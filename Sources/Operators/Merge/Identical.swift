package import Core
import Glibc

/// Copies a tensor that no arithmetic is defined on (integers, booleans, packed types), after making sure that all models agree on it.
///
/// The planner puts it in the place of the recipe's method (mergekit-compatible behaviour for non-floating inputs).
package struct Identical: MergeMethod {
    package static let name = "identical"
    package static let summary = "Copies a tensor that must be the same in all models."
    package static let inputs = InputContract(base: .plainInput, models: 1...Int.max)
    package static let parameters: [Parameter] = []

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {}

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(reads: 2) }

    package func merge(_ tensor: TensorPasses) throws {
        for (index, source) in tensor.sources.enumerated().dropFirst() {
            if let byte = try tensor.sources[0].firstDifference(from: source) {
                throw TesseraError(
                    .badData,
                    "holds \(tensor.outputType.rawValue) values, which cannot be averaged, and model \(index + 1) differs from model 1 at byte \(byte)",
                    advice: "only tensors of a floating type may differ between the models of a merge")
            }
        }
        try tensor.emitBytes(ofSource: 0)
    }
}

extension ElementSource {
    /// The first byte at which two tensors of one type and length differ.
    fileprivate func firstDifference(from other: any ElementSource) throws -> Int? {
        let length = count * dtype.bitWidth / 8
        let stretch = 1 << 20
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * stretch, alignment: 64)
        defer { room.deallocate() }
        guard let first = room.baseAddress else { return nil }
        let second = first + stretch
        for start in stride(from: 0, to: length, by: stretch) {
            let range = start..<min(length, start + stretch)
            try copyBytes(range, to: first)
            try other.copyBytes(range, to: second)
            if memcmp(first, second, range.count) != 0 {
                return (0..<range.count).first { room[$0] != room[stretch + $0] }.map { start + $0 }
            }
        }
        return nil
    }
}
