import Core
import LinearAlgebra
import TensorKernels

/// A tensor that a method is given beside the models, out of a file that the recipe names (`Parameter.Kind.tensors`): Fisher
/// information, a Gram matrix, a mask.
package struct GivenTensor: Sendable {
    /// Which parameter of which input names the file.
    package struct Role: Sendable, Hashable, Codable {
        package let parameter: String
        /// `nil` for a parameter that all inputs share.
        package let input: Int?
        /// As the recipe writes it, for messages.
        package let file: String

        package init(parameter: String, input: Int?, file: String) {
            self.parameter = parameter
            self.input = input
            self.file = file
        }
    }

    package let role: Role
    package let shape: [Int]
    let tensor: StoredTensor

    package init(_ role: Role, shape: [Int], tensor: StoredTensor) {
        self.role = role
        self.shape = shape
        self.tensor = tensor
    }

    /// What is wrong with the values of the file.
    func refusal(_ problem: String, advice: String) -> TesseraError {
        TesseraError(.badData, problem, file: role.file, advice: advice)
    }

    /// The integers of `range`.
    ///
    /// - Throws: `badData` for a type that is none of integers, and errors of reading.
    func integers(_ range: Range<Int>) throws -> [Int] {
        let width = tensor.dtype.bitWidth / 8
        var bytes = [UInt8](repeating: 0, count: range.count * width)
        try bytes.withUnsafeMutableBytes { buffer in
            guard let target = buffer.baseAddress, !range.isEmpty else { return }
            try tensor.copyBytes(range.lowerBound * width..<range.upperBound * width, to: target)
        }
        return try bytes.withUnsafeBytes { raw in
            func read<Number: FixedWidthInteger & BitwiseCopyable>(_: Number.Type) -> [Int] {
                (0..<range.count).map {
                    Int(clamping: Number(littleEndian: raw.loadUnaligned(fromByteOffset: $0 * width, as: Number.self)))
                }
            }
            switch tensor.dtype {
            case .u8: return read(UInt8.self)
            case .i8: return read(Int8.self)
            case .i16: return read(Int16.self)
            case .i32: return read(Int32.self)
            case .i64: return read(Int64.self)
            default: throw refusal("holds \(tensor.dtype.rawValue) values", advice: "store integers")
            }
        }
    }
}

extension TensorInputs {
    /// The index of the given tensor of a parameter; `nil` when there is none.
    func given(_ parameter: String, ofInput input: Int? = nil) -> Int? {
        given.firstIndex { $0.parameter == parameter && $0.input == input }
    }
}

extension TensorPasses {
    /// The index of the given tensor of a parameter that has the tensor's own shape.
    ///
    /// - Throws: `badData` when the plan has none.
    func givenIndex(_ parameter: String, ofInput input: Int? = nil) throws(TesseraError) -> Int {
        guard let index = inputs.given(parameter, ofInput: input), given.indices.contains(index),
            given[index].tensor.count == count
        else {
            throw TesseraError(.badData, "the plan has no tensor of this shape for the parameter '\(parameter)'")
        }
        return index
    }

    /// A given tensor as a matrix, whose columns are the last axis. Its stored bytes are released.
    ///
    /// - Throws: as `matrix(rows:columns:)`, `badData` for a value that is not finite, and errors of reading.
    func givenMatrix(_ index: Int) throws -> Matrix {
        let tensor = given[index].tensor, columns = max(1, given[index].shape.last ?? 1)
        let matrix = try matrix(rows: tensor.count / columns, columns: columns)
        guard let first = matrix.elements.baseAddress, tensor.count > 0 else { return matrix }
        tensor.prefetch(0..<tensor.count)
        defer { tensor.release(0..<tensor.count) }
        if tensor.dtype == .f64 {
            try tensor.copyBytes(0..<tensor.count * MemoryLayout<Double>.stride, to: first)
        } else {
            try Scratch.with(elements: FixedTree.tileElements) { values, scratch in
                for start in stride(from: 0, to: tensor.count, by: FixedTree.tileElements) {
                    let range = start..<min(tensor.count, start + FixedTree.tileElements)
                    try tensor.load(range, into: values, scratch: scratch, kernels: kernels)
                    kernels.narrow(values, to: .f64, first + start, count: range.count)
                }
            }
        }
        do throws(TesseraError) {
            try matrix.checkFinite()
        } catch {
            throw given[index].refusal(error.problem, advice: "compute the file again")
        }
        return matrix
    }
}
