package import Checkpoints
package import Core
package import Operators
package import Work

/// The outputs that codecs make of merged tensors, laid out as a checkpoint.
package struct MergedOutputs: Sendable {
    package let layout: CheckpointLayout
    /// The outputs of each of the tensors.
    package let outputs: [[OutputTensor]]

    /// - Parameters:
    ///   - tensors: the name of each merged tensor, and what its codec makes of it.
    ///   - onlyPart: the name of the file for all of them, without its extension; `nil` for those of a checkpoint.
    /// - Throws: `badData` when an output has the name of another.
    package init(
        _ tensors: [(name: String, outputs: [EncodedTensor])], onlyPart: String? = nil, maxPartBytes: Int
    ) throws(TesseraError) {
        try Self.checkNames(tensors)
        let all = tensors.flatMap { tensor in tensor.outputs.map { NewTensor($0, of: tensor.name) } }
        let layout =
            if let onlyPart { try CheckpointLayout(groups: [(onlyPart, [all])], maxPartBytes: maxPartBytes) } else {
                try CheckpointLayout(tensors: all, maxPartBytes: maxPartBytes)
            }
        self.layout = layout
        var number = 0
        outputs = tensors.map { tensor in
            tensor.outputs.map { output in
                defer { number += 1 }
                return layout.output(output, number: number)
            }
        }
    }

    /// The names of merged tensors differ. Only a suffix can make one of them the name of another.
    private static func checkNames(_ tensors: [(name: String, outputs: [EncodedTensor])]) throws(TesseraError) {
        guard tensors.contains(where: { $0.outputs.contains { !$0.suffix.isEmpty } }) else { return }
        var names: Set<ExactText> = []
        for tensor in tensors {
            for output in tensor.outputs where !names.insert(ExactText(output.name(of: tensor.name))).inserted {
                throw TesseraError(
                    .badData, "is stored as '\(output.name(of: tensor.name))', which is the name of another tensor",
                    tensor: tensor.name, advice: "rename one of the two in the models")
            }
        }
    }
}

extension OutputTensor {
    /// The same tensor in one of several copies of its layout.
    ///
    /// - Parameter copy: its number.
    func inCopy(_ copy: Int, of layout: CheckpointLayout) -> OutputTensor {
        OutputTensor(
            name: name, dtype: dtype, byteCount: byteCount, part: copy * layout.parts.count + part, offset: offset,
            blockSize: blockSize)
    }
}

extension NewTensor {
    /// An output of a codec or a storage format.
    init(_ output: EncodedTensor, of tensor: String) {
        self.init(name: output.name(of: tensor), dtype: output.dtype, shape: output.shape)
    }
}

extension CheckpointLayout {
    /// The output that was laid out as the tensor with this number (`places`).
    func output(_ output: EncodedTensor, number: Int) -> OutputTensor {
        let place = places[number], entry = parts[place.part].tensors[place.position]
        return OutputTensor(output, name: entry.name, part: place.part, offset: entry.range.lowerBound)
    }
}
