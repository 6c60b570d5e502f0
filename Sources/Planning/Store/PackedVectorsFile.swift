import Checkpoints
import Core
import FoundationEssentials
import Recipes
import TaskVectors
import Work

/// The file of the small vectors of a recipe's tasks: safetensors, with one tensor of bytes for each task.
extension StoreIndexWriter {
    /// Its own: a task's files end in `.safetensors`.
    var packedFile: String { "\(recipe.tasks.first?.name ?? "")\(Manifest.packedVectorsSuffix)" }

    /// Where the task's small vectors will be found; `nil` if it has none.
    func packed(ofTask number: Int) -> StoreIndex.Packed? {
        guard zip(tensors, encodings).contains(where: { packedByteCount($1, shape: $0.shape, ofTask: number) != nil }) else {
            return nil
        }
        return StoreIndex.Packed(file: packedFile, limit: BudgetPlanner.packLimit)
    }

    /// The index, and the packed vectors if there are any.
    var derivedFiles: [DerivedFile] {
        let packs = recipe.tasks.indices.contains { packed(ofTask: $0) != nil }
        return [.storeIndex(self)] + (packs ? [.packedVectors(self)] : [])
    }

    private func packedByteCount(_ encoding: Encoding, shape: [Int], ofTask number: Int) -> Int? {
        guard case .quantize(let quantizer) = encoding else { return nil }
        return quantizer.packedByteCount(of: quantizer.tasks[number], shape: shape)
    }

    func packedVectors(statistics: [ExactText: TensorStatistics]) throws(TesseraError) -> [UInt8] {
        var bytes = recipe.tasks.map { _ in [UInt8]() }
        for (tensor, encoding) in zip(tensors, encodings) {
            guard case .quantize = encoding else { continue }
            guard case .vectors(_, let errors) = statistics[ExactText(tensor.name)]?.encoding, errors.count == bytes.count else {
                throw TesseraError(.internal, "no statistics for this tensor", tensor: tensor.name)
            }
            for (number, error) in errors.enumerated() { bytes[number] += error.packed ?? Data() }
        }
        let named = zip(recipe.tasks, bytes).filter { !$1.isEmpty }
        let layout = try CheckpointLayout(
            groups: [(packedFile, [named.map { NewTensor(name: $0.name, dtype: .u8, shape: [$1.count]) }])], maxPartBytes: .max)
        guard let part = layout.parts.first else { return [] }
        var file = part.header
        for tensor in part.tensors { file += named.first { $0.0.name == tensor.name }?.1 ?? [] }
        return file
    }
}

extension DerivedFile {
    /// Statistics as large as any, for the size of the file.
    ///
    /// - Parameter digest: any.
    func placeholders(_ digest: Digest) -> [ExactText: TensorStatistics] {
        let writer =
            switch self {
            case .storeIndex(let writer), .packedVectors(let writer): writer
            }
        // As many digits as numbers and their quotients may have.
        let energy = 0x1.fffffffffffffp+1000
        let known = Dictionary(
            (writer.extended?.tensors ?? []).map { (ExactText($0.name), $0.base) }, uniquingKeysWith: { first, _ in first })
        return Dictionary(
            zip(writer.tensors, writer.encodings).map { tensor, encoding in
                let base = known[ExactText(tensor.name)] ?? BaseIdentity(digest: digest, sample: digest)
                guard case .quantize(let quantizer) = encoding else {
                    return (
                        ExactText(tensor.name), .encoding(.comparison(base: base, writer.recipe.tasks.map { _ in true }))
                    )
                }
                let errors = quantizer.tasks.map { format in
                    VectorError(
                        error: energy * 1.234567e-6, energy: energy, product: energy * (1 - 1.234567e-6),
                        packed: quantizer.packedByteCount(of: format, shape: tensor.shape).map { Data(count: $0) })
                }
                return (ExactText(tensor.name), .encoding(.vectors(base: base, errors)))
            }, uniquingKeysWith: { first, _ in first })
    }
}
