package import Checkpoints
package import Core
import FoundationEssentials

/// `task-vectors.json`: what the safetensors files of a store mean (docs/task-vectors.md).
package struct StoreIndex: Sendable, Hashable, VersionedFile {
    package static let fileName = Manifest.storeIndexName
    package static let formatName = "tessera.task-vectors"
    package static let formatVersion = 2
    package static let title = "the index of a store of task vectors"

    /// The base that the task vectors were taken from.
    package struct Base: Sendable, Hashable, Codable {
        /// As the recipe had it.
        package let model: String
        package let parts: [ManifestInput.Part]
        /// SHA-256 over the digests of its tensors, in the order of `tensors`.
        package let digest: Digest

        package init(model: String, parts: [ManifestInput.Part], digest: Digest) {
            self.model = model
            self.parts = parts
            self.digest = digest
        }
    }

    package struct Tensor: Sendable, Hashable {
        package let name: String
        /// Of the base.
        package let dtype: DType
        package let shape: [Int]
        package let base: BaseIdentity
        /// `nil` in stores of the first version.
        package let measured: Measured?

        package init(name: String, dtype: DType, shape: [Int], base: BaseIdentity, measured: Measured? = nil) {
            self.name = name
            self.dtype = dtype
            self.shape = shape
            self.base = base
            self.measured = measured
        }

        package var elementCount: Int { Shape.count(shape) }
    }

    /// What was measured of a tensor's vectors in all tasks of a recipe, in three digits.
    package struct Measured: Sendable, Hashable {
        /// `Σ(τ − τ̂)² / Στ²`
        package let error: Double
        /// `Σττ̂ / Στ² − 1`
        package let bias: Double
        /// What the budget predicted, a mean over the tasks (docs/task-vectors.md).
        package let loss: Double

        package init(error: Double, bias: Double, loss: Double) {
            self.error = Self.rounded(error)
            self.bias = Self.rounded(bias)
            self.loss = Self.rounded(loss)
        }

        private static func rounded(_ number: Double) -> Double {
            var scale = 1.0
            while number.magnitude * scale < 100, scale < 1e15 { scale *= 10 }
            return (number * scale).rounded() / scale
        }
    }

    /// The vector that all tasks share.
    package struct Shared: Sendable, Hashable, Codable {
        package let files: [String]
        /// Of each tensor, in the order of `tensors`; `null` where there is none.
        package let formats: [StorageFormat?]

        package init(files: [String], formats: [StorageFormat?]) {
            self.files = files
            self.formats = formats
        }

        private enum CodingKeys: String, CodingKey {
            case files
            case formats = "forms"
        }
    }

    /// Where the small vectors of a task lie: one after another in one tensor, which has the task's name.
    package struct Packed: Sendable, Hashable, Codable {
        package let file: String
        /// Bytes: vectors of at most so many are in it.
        package let limit: Int

        package init(file: String, limit: Int) {
            self.file = file
            self.limit = limit
        }
    }

    package struct Task: Sendable, Hashable {
        package let name: String
        /// As the recipe had it.
        package let model: String
        package let parts: [ManifestInput.Part]
        /// What the recipe asked for, in words.
        package let scheme: String
        package let files: [String]
        package let packed: Packed?
        /// Decides which elements thinned vectors keep; `nil` if there are none.
        package let seed: UInt64?
        /// Whose masks thinned vectors have.
        package let masks: ThinnedGrid.Masks
        /// Of each tensor, in the order of `tensors`; `nil` where the tensor is the base's.
        package let formats: [StorageFormat?]
        /// What the vector is multiplied by when it is read.
        package let factor: Double
        /// `Σ(τ − τ̂)²` and `Στ²` over the whole model.
        package let error: Double
        package let energy: Double
        /// `Σττ̂ / Στ² − 1`: how much too far the stored vector steps along the task's. `nil` in earlier stores.
        package let bias: Double?
        /// What a budget's measurements promised of `error / energy`; `nil` without a budget.
        package let predicted: Double?
        /// Tensors without arithmetic that differ from the base's, of which nothing is stored.
        package let lost: [String]

        package init(
            name: String, model: String, parts: [ManifestInput.Part], scheme: String, files: [String], packed: Packed? = nil,
            seed: UInt64? = nil, masks: ThinnedGrid.Masks = .own, formats: [StorageFormat?], factor: Double, error: Double,
            energy: Double, bias: Double? = nil,
            predicted: Double?, lost: [String]
        ) {
            self.name = name
            self.model = model
            self.parts = parts
            self.scheme = scheme
            self.files = files
            self.packed = packed
            self.seed = seed
            self.masks = masks
            self.formats = formats
            self.factor = factor
            self.error = error
            self.energy = energy
            self.bias = bias
            self.predicted = predicted
            self.lost = lost
        }

        /// The files that hold its tensors and its packed vectors.
        package var allFiles: [String] { files + [packed?.file].compactMap(\.self) }
    }

    package let format: String
    package let version: Int
    package let base: Base
    /// Every tensor of the base, in byte order of the names.
    package let tensors: [Tensor]
    package let shared: Shared?
    package let tasks: [Task]

    package init(base: Base, tensors: [Tensor], shared: Shared?, tasks: [Task]) {
        format = Self.formatName
        // Stores without the forms of the second version can be read by builds that know the first.
        version = tasks.contains { $0.packed != nil || $0.formats.contains { $0?.isOfSecondVersion == true } } ? 2 : 1
        self.base = base
        self.tensors = tensors
        self.shared = shared
        self.tasks = tasks
    }

    package func encoded() throws(TesseraError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
        } catch {
            throw TesseraError(.internal, "the index of the store cannot be encoded: \(error)")
        }
    }

    /// - Throws: `badData` when it is damaged or of a newer format.
    static func read(directory: String, in files: any InputFiles) throws(TesseraError) -> StoreIndex {
        let path = "\(directory)/\(fileName)", index = try StoreIndex.decode(path, in: files)
        var names: Set<String> = []
        for name in index.tasks.map(\.name) where !TaskName.isValid(name) || !names.insert(name).inserted {
            let problem = names.contains(name) ? "has two tasks" : "has a task with the invalid name"
            throw TesseraError(.badData, "is damaged: \(problem) '\(name)'", file: path)
        }
        guard index.tasks.allSatisfy({ $0.formats.count == index.tensors.count }),
            index.shared.map({ $0.formats.count == index.tensors.count }) ?? true,
            (index.tasks.flatMap(\.allFiles) + (index.shared?.files ?? [])).allSatisfy({
                FilePath.isName($0) && !$0.hasPrefix(".")
            })
        else { throw TesseraError(.badData, "is damaged: it contradicts itself", file: path) }
        try index.checkSizes(file: path)
        return index
    }

    /// Bounds every number that sizes are computed from.
    private func checkSizes(file: String) throws(TesseraError) {
        var byteCount = 0
        for (position, tensor) in tensors.enumerated() {
            do throws(TesseraError) {
                byteCount += try tensor.dtype.byteCount(ofShape: tensor.shape)
            } catch {
                throw TesseraError(.badData, error.problem, file: file, tensor: tensor.name)
            }
            for formats in tasks.map(\.formats) + [shared?.formats].compactMap(\.self) {
                guard case .sparse(let kept, _)? = formats[position], kept > tensor.elementCount else { continue }
                throw TesseraError(
                    .badData, "keeps \(kept) of \(tensor.elementCount) elements", file: file, tensor: tensor.name)
            }
            guard byteCount <= SizeLimit.total / max(1, tasks.count) else {
                throw TesseraError(.badData, "the tasks have more than \(SizeLimit.total) bytes in total", file: file)
            }
        }
    }
}
