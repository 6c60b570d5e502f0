import Checkpoints
import Core
import Recipes
import Work

/// One tensor of a base and its fine-tunes, as a store will hold it.
struct StoreTensor {
    let name: String
    let dtype: DType
    let shape: [Int]
    /// The base's, then those of the fine-tunes.
    let sources: [SourceReference]
    /// Whether it is encoded as the recipe says, or stored as it is.
    let isEncoded: Bool

    var elementCount: Int { Shape.count(shape) }
    /// Whether there is arithmetic on its type.
    var isArithmetic: Bool { dtype.isArithmetic }
    /// Bytes in one fine-tune.
    var byteCount: Int { elementCount * dtype.bitWidth / 8 }
}

/// Finds the tensors of a store, and all that does not fit.
enum StoreTensors {
    /// - Returns: the tensors in byte order of their names.
    /// - Throws: `Problems` naming tensors that a model lacks, or has in another shape or type.
    static func find(_ recipe: StoreRecipe, in inputs: InputSet) throws(Problems) -> [StoreTensor] {
        let models = recipe.tasks.compactMap { inputs.index(of: $0.model.value) }
        guard let base = inputs.base.map({ inputs.inputs[$0] }), models.count == recipe.tasks.count else {
            throw Problems([TesseraError(.internal, "a model was not opened", file: recipe.file)])
        }
        var problems = ProblemList(file: recipe.file)
        func complain(_ problem: String, _ tensor: String, advice: String) {
            problems.add([TesseraError(.badData, problem, file: recipe.file, tensor: tensor, advice: advice)])
        }
        var tensors: [StoreTensor] = []
        for name in base.tensorNames {
            guard let own = base.tensor(named: name) else { continue }
            // Integers are no part of a task vector: a fine-tune may lack them, and what is rebuilt has the base's.
            if !own.source.dtype.isArithmetic, models.contains(where: { inputs.inputs[$0].tensor(named: name) == nil }) {
                continue
            }
            if let scaled = base.scaledCodes(name) { complain(scaled.problem, name, advice: scaled.advice) }
            var sources = [own.source]
            for model in models.map({ inputs.inputs[$0] }) {
                guard let found = model.tensor(named: name) else {
                    complain("missing in \(model.reference)", name, advice: "a fine-tune must have every tensor of its base")
                    continue
                }
                if let scaled = model.scaledCodes(name) { complain(scaled.problem, name, advice: scaled.advice) }
                if found.shape != own.shape {
                    complain(
                        "has shape \(own.shape) in the base and \(found.shape) in \(model.reference)", name,
                        advice: "a task vector needs equal shapes; name the base that the model was fine-tuned from")
                } else if found.dtype != own.dtype,
                    !(found.dtype.isArithmetic && own.dtype.isArithmetic)
                {
                    complain(
                        "is \(own.dtype.rawValue) in the base and \(found.dtype.rawValue) in \(model.reference)",
                        name,
                        advice: "a task vector needs types that can be subtracted")
                }
                sources.append(found.source)
            }
            tensors.append(
                StoreTensor(
                    name: name, dtype: own.dtype, shape: own.shape, sources: sources,
                    isEncoded: own.dtype.isArithmetic && recipe.filter.takes(name, rank: own.shape.count)))
        }
        for model in models.map({ inputs.inputs[$0] }) {
            for name in model.tensorNames where !base.has(name) {
                if model.tensor(named: name)?.dtype.isArithmetic == false { continue }
                complain(
                    "is in \(model.reference) but not in the base", name,
                    advice: "name the base that the model was fine-tuned from")
            }
        }
        for pattern in recipe.filter.include + recipe.filter.exclude
        where !tensors.contains(where: { $0.name.holds(pattern.value) }) {
            problems.add([
                TesseraError(
                    .badData, "no tensor name contains '\(pattern.value)'", file: recipe.file, line: pattern.line,
                    advice: "'tessera inspect' lists the names")
            ])
        }
        try problems.throwIfAny()
        return tensors
    }
}
