import Checkpoints
import Core
import Operators
import Planning
import Recipes
import TaskVectors
import TensorKernels
import Tokenizers
import Work

extension FuzzTarget {
    /// A safetensors file.
    static let header = FuzzTarget("header") { input in
        var folder = Folder()
        folder.write(input, to: "/x.safetensors")
        let header = try SafetensorsHeader.read(path: "/x.safetensors", in: folder)
        precondition(header.fileSize == input.count)
        var end = header.byteCount
        for tensor in header.tensors.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
            precondition(tensor.range.lowerBound >= end && tensor.range.upperBound <= input.count, "tensors overlap")
            end = tensor.range.upperBound
        }
    }

    /// An index over the parts of a model, and its config.
    static let checkpoint = FuzzTarget("checkpoint") { input in
        let parts = sections(input, 2)
        var folder = Folder.models
        folder.write(parts[0], to: "/models/a/model.safetensors.index.json")
        folder.write(parts[1], to: "/models/a/config.json")
        let checkpoint = try Checkpoint.open("/models/a", in: folder)
        for name in checkpoint.tensorNames { precondition(checkpoint.tensor(named: name) != nil, name) }
    }

    /// A manifest, and checksums beside it.
    static let manifest = FuzzTarget("manifest") { input in
        let parts = sections(input, 2)
        var folder = Folder.models
        folder.write(parts[0], to: "/models/a/tessera.manifest.json")
        folder.write(parts[1], to: "/models/a/SHA256SUMS")
        let report = try Verification(directory: "/models/a", in: folder).run(threads: 1)
        // A line for each finding of one piece at most: a small file cannot make a large report.
        precondition(report.findings.count <= 8 * input.count + 64)
    }

    /// A signature as somebody else has written it, and the statement that somebody has signed.
    static let signature = FuzzTarget("signature") { input in
        do throws(TesseraError) {
            _ = try SignedStatement(try SignatureBundle(input, file: "model.sig").payload, file: "model.sig")
        } catch  where error.code == .internal {
            throw error
        } catch {
            _ = try SignedStatement(input, file: "model.sig")
        }
    }

    static let recipe = FuzzTarget("recipe") { input in
        guard let text = String(validating: input, as: UTF8.self) else { return }
        _ = try JobRecipe.parse(text: text, file: "recipe.yml")
    }

    /// A recipe over small models, and the config of its first.
    static let plan = FuzzTarget("plan") { input in
        let parts = sections(input, 2)
        var folder = Folder.models
        if !parts[1].isEmpty { folder.write(parts[1], to: "/models/a/config.json") }
        try planAndRead(parts[0], folder)
    }

    /// The config of an adapter, and its tensors.
    static let adapter = FuzzTarget("adapter") { input in
        let parts = sections(input, 2)
        var folder = Folder.models
        folder.write(parts[0], to: "/models/adapter/adapter_config.json")
        if !parts[1].isEmpty { folder.write(parts[1], to: "/models/adapter/adapter_model.safetensors") }
        try planAndRead(Array("merge_method: linear\nmodels:\n- {model: a+adapter, parameters: {weight: 1}}\n".utf8), folder)
    }

    /// The files of a tokenizer, aligned with another.
    static let tokenizer = FuzzTarget("tokenizer") { input in
        let names = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"]
        var folder = Folder.models
        for (name, bytes) in zip(names, sections(input, names.count)) { folder.write(bytes, to: "/models/b/\(name)") }
        _ = try Tokenizer.read("/models/b", in: folder)
        try planAndRead(
            Array(
                "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\ntokenizer: {source: union}".utf8
            ),
            folder)
    }

    /// The index of a store of task vectors, and its files with vectors.
    static let store = FuzzTarget("store") { input in
        let parts = sections(input, 4)
        var folder = Folder.models
        folder.write(parts[0], to: "/models/store/task-vectors.json")
        folder.write(parts[1], to: "/models/store/b.safetensors")
        folder.write(parts[2], to: "/models/store/shared.safetensors")
        folder.write(parts[3], to: "/models/store/b.packed")
        let store = try TaskVectorStore.open("/models/store", in: folder)
        _ = try store.differences(from: try Checkpoint.open("/models/a", in: folder))
        try planAndRead(Array("merge_method: passthrough\nmodels:\n- model: store#b\n".utf8), folder)
    }

    /// Plans, and reads every source of every tensor as a worker does.
    private static func planAndRead(_ recipe: [UInt8], _ folder: Folder) throws {
        guard let text = String(validating: recipe, as: UTF8.self) else { return }
        let plan = try Planner.plan(
            PlanRequest(
                recipe: text, recipeName: "recipe.yml", workingDirectory: "/models", roots: Roots(everythingIn: folder)))
        let kernels = Kernels.best, tile = FixedTree.tileElements
        let values = UnsafeMutablePointer<Float>.allocate(capacity: tile)
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: tile * 8, alignment: 64)
        defer {
            values.deallocate()
            scratch.deallocate()
        }
        for shard in plan.stages.joined() {
            let work = plan.work(of: shard)
            let files = try work.files.map { file throws(TesseraError) in try folder.open("/\(file.path)") }
            for tensor in work.tensors {
                _ = try tensor.cost()
                for source in try tensor.openSources(in: files, kernels: kernels) where source.count > 0 {
                    // The first tile and the last.
                    for start in Set([0, (source.count - 1) / tile * tile]) {
                        try source.load(
                            start..<min(source.count, start + tile), into: values, scratch: scratch, kernels: kernels)
                    }
                }
            }
        }
    }
}
