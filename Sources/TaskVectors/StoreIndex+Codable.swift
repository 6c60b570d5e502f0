import Checkpoints
import Core
import FoundationEssentials

/// The index as JSON. In the first version each task has its formats as objects; in the second the index lists every format once,
/// and a task has their numbers.
extension StoreIndex: Codable {
    private enum CodingKeys: String, CodingKey {
        case format, version, base, tensors, samples, digests, shared, tasks
        case formats = "forms"
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let version = try container.decode(Int.self, forKey: .version)
        let formats = version > 1 ? try container.decode([StorageFormat].self, forKey: .formats) : []
        let entries = try container.decode([TensorEntry].self, forKey: .tensors)
        var samples = try DigestReader(container.decodeIfPresent(Data.self, forKey: .samples))
        var digests = try DigestReader(container.decodeIfPresent(Data.self, forKey: .digests))
        let tensors = try entries.map { try $0.tensor(&samples, &digests) }
        self.init(
            base: try container.decode(Base.self, forKey: .base), tensors: tensors,
            shared: try container.decodeIfPresent(Shared.self, forKey: .shared),
            tasks: try container.decode([TaskEntry].self, forKey: .tasks).map { try $0.task(formats, tensors) })
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(format, forKey: .format)
        try container.encode(version, forKey: .version)
        try container.encode(base, forKey: .base)
        try container.encode(tensors.map { TensorEntry($0, hasBase: version == 1) }, forKey: .tensors)
        try container.encodeIfPresent(shared, forKey: .shared)
        guard version > 1 else { return try container.encode(tasks.map { TaskEntry($0, numbers: nil) }, forKey: .tasks) }
        var formats: [StorageFormat] = [], numbers: [StorageFormat: Int] = [:]
        for format in tasks.flatMap(\.formats).compactMap({ $0?.unkeyed }) where numbers[format] == nil {
            numbers[format] = formats.count
            formats.append(format)
        }
        try container.encode(formats, forKey: .formats)
        try container.encode(Data(tensors.flatMap(\.base.sample.bytes)), forKey: .samples)
        try container.encode(
            Data(tensors.filter { !TensorEntry.isSampledWhole($0) }.flatMap(\.base.digest.bytes)), forKey: .digests)
        try container.encode(tasks.map { TaskEntry($0, numbers: numbers) }, forKey: .tasks)
    }
}

/// A tensor as the index has it. In the second version the samples and digests of all tensors' bases are two texts, and the
/// digest of a small one is left out: it follows from the sample, which is of all bytes.
private struct TensorEntry: Codable {
    private let name: String
    private let dtype: DType
    private let shape: [Int]
    private let base: BaseIdentity?
    /// Error, bias and loss.
    private let measured: [Double]?

    init(_ tensor: StoreIndex.Tensor, hasBase: Bool) {
        name = tensor.name
        dtype = tensor.dtype
        shape = tensor.shape
        base = hasBase ? tensor.base : nil
        measured = hasBase ? nil : tensor.measured.map { [$0.error, $0.bias, $0.loss] }
    }

    func tensor(_ samples: inout DigestReader, _ digests: inout DigestReader) throws -> StoreIndex.Tensor {
        if let base { return StoreIndex.Tensor(name: name, dtype: dtype, shape: shape, base: base) }
        let sample = try samples.next()
        let isWhole = try dtype.byteCount(ofShape: shape) <= BaseIdentity.sampleByteCount
        // It has one block, whose digest the sample is.
        let digest = try isWhole ? TreeDigest.tensor(blocks: [sample]) : digests.next()
        return StoreIndex.Tensor(
            name: name, dtype: dtype, shape: shape, base: BaseIdentity(digest: digest, sample: sample),
            measured: measured.flatMap { $0.count == 3 ? .init(error: $0[0], bias: $0[1], loss: $0[2]) : nil })
    }

    static func isSampledWhole(_ tensor: StoreIndex.Tensor) -> Bool {
        tensor.elementCount * tensor.dtype.bitWidth / 8 <= BaseIdentity.sampleByteCount
    }
}

/// Takes digests of 32 bytes from a text.
private struct DigestReader {
    private var rest: Data

    init(_ bytes: Data?) { rest = bytes ?? Data() }

    mutating func next() throws -> Digest {
        guard let digest = Digest(bytes: rest.prefix(Digest.byteCount)) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: [], debugDescription: "the samples or digests are fewer than the tensors"))
        }
        rest = rest.dropFirst(Digest.byteCount)
        return digest
    }
}

/// A task as the index has it.
private struct TaskEntry: Codable {
    private enum Formats: Codable {
        case objects([StorageFormat?])
        case numbers([Int?])

        init(from decoder: any Decoder) throws {
            if let numbers = try? [Int?](from: decoder) {
                self = .numbers(numbers)
            } else {
                self = .objects(try [StorageFormat?](from: decoder))
            }
        }

        func encode(to encoder: any Encoder) throws {
            switch self {
            case .objects(let objects): try objects.encode(to: encoder)
            case .numbers(let numbers): try numbers.encode(to: encoder)
            }
        }
    }

    private enum CodingKeys: String, CodingKey {
        case name, model, parts, scheme, files, packed, seed, masks, factor, error, energy, bias, predicted, lost
        case formats = "forms"
    }

    private let name: String
    private let model: String
    /// In the manifest alone in the second version.
    private let parts: [ManifestInput.Part]?
    private let scheme: String
    private let files: [String]
    private let packed: StoreIndex.Packed?
    private let seed: UInt64?
    /// Absent if each task has its own.
    private let masks: ThinnedGrid.Masks?
    private let formats: Formats
    private let factor: Double
    private let error: Double
    private let energy: Double
    private let bias: Double?
    private let predicted: Double?
    private let lost: [String]

    init(_ task: StoreIndex.Task, numbers: [StorageFormat: Int]?) {
        name = task.name
        model = task.model
        parts = numbers == nil ? task.parts : nil
        scheme = task.scheme
        files = task.files
        packed = task.packed
        seed = task.seed
        masks = task.masks == .own ? nil : task.masks
        formats =
            numbers.map { numbers in .numbers(task.formats.map { $0.flatMap { numbers[$0.unkeyed] } }) }
            ?? .objects(task.formats)
        factor = task.factor
        error = task.error
        energy = task.energy
        bias = task.bias
        predicted = task.predicted
        lost = task.lost
    }

    /// - Throws: for formats that the index does not list, and for thinned ones without a seed.
    func task(_ all: [StorageFormat], _ tensors: [StoreIndex.Tensor]) throws -> StoreIndex.Task {
        var found: [StorageFormat?] =
            switch formats {
            case .objects(let objects): objects
            case .numbers(let numbers):
                try numbers.map { number in
                    guard let number else { return nil }
                    guard all.indices.contains(number) else { throw damage("has the form \(number) of \(all.count)") }
                    return all[number]
                }
            }
        for (position, tensor) in tensors.enumerated().prefix(found.count) where found[position]?.isThinned == true {
            guard let seed else { throw damage("has thinned vectors, but no seed") }
            found[position] = try found[position]?.keyed(seed: seed, masks ?? .own, task: name, tensor: tensor.name)
        }
        return StoreIndex.Task(
            name: name, model: model, parts: parts ?? [], scheme: scheme, files: files, packed: packed, seed: seed,
            masks: masks ?? .own, formats: found,
            factor: factor, error: error, energy: energy, bias: bias, predicted: predicted, lost: lost)
    }

    private func damage(_ problem: String) -> DecodingError {
        .dataCorrupted(.init(codingPath: [], debugDescription: "the task \(name) \(problem)"))
    }
}
