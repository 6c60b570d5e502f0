import Core
import Yams

/// What is kept of the task vectors of a sparse store.
extension RecipeReader {
    private static let methods = ["magnitude", "dare", "n:m", "cabs", "tall", "emr"]

    mutating func readSparsity(_ mapping: Node.Mapping, tasks: Int) -> StoreRecipe.Kind? {
        let method = mapping["method"]?.plainText ?? ""
        let own: [String: [String]] = [
            "magnitude": ["density", "scope"], "dare": ["density"], "n:m": ["n", "m", "tail"], "cabs": ["n", "m", "tail"],
            "tall": ["mask_lambda"], "emr": ["rescale"],
        ]
        guard let keys = own[method] else {
            complain(
                mapping["method"] == nil ? "has no 'method'" : "unknown method '\(method)'",
                at: mapping["method"]?.line ?? mapping.first?.key.line ?? 1,
                advice: Suggestion.advice(for: method, in: Self.methods, otherwise: "write one of"))
            return nil
        }
        checkKeys(of: mapping, known: ["method", "values"] + keys + Self.filterKeys, place: "'sparsify' by \(method)")
        let line = mapping["method"]?.line ?? 1
        let sparsity: StoreRecipe.Sparsity?
        switch method {
        case "magnitude":
            let isModelWide = readsOther(
                mapping, "scope", "tensor", "model", line: line,
                advice: "write what the density applies to: each tensor or the whole model")
            sparsity = readDensity(mapping, line).map { .magnitude(density: $0, isModelWide: isModelWide) }
        case "dare": sparsity = readDensity(mapping, line).map { .random(density: $0) }
        case "tall": sparsity = readLambdas(mapping, tasks: tasks).map { .tall($0) }
        case "emr":
            let isOfSums = readsOther(
                mapping, "rescale", "means", "sums", line: line,
                advice: "write 'means' (of each tensor, as in the authors' code) or 'sums' (as in their paper)")
            sparsity = .emr(sumsOfMeans: !isOfSums)
        default: sparsity = readBlocks(mapping, isDisjoint: method == "cabs", line: line)
        }
        guard let sparsity, let values = readValueFormat(mapping) else { return nil }
        return .sparsify(sparsity, values)
    }

    private mutating func readDensity(_ mapping: Node.Mapping, _ line: Int) -> Double? {
        if let density = mapping["density"]?.scalarValue?.asDouble, density > 0, density <= 1 { return density }
        let problem = mapping["density"].map { "'density' is \($0.shown); it must be above 0 and at most 1" }
        complain(
            problem ?? "has no 'density'", at: mapping["density"]?.line ?? line,
            advice: "write the share of entries to keep, as in 'density: 0.2'")
        return nil
    }

    private mutating func readLambdas(_ mapping: Node.Mapping, tasks: Int) -> [Double]? {
        guard let node = mapping["mask_lambda"] else { return Array(repeating: 0.4, count: tasks) }
        var lambdas: [Double] = []
        if case .sequence(let list) = node {
            lambdas = list.compactMap { $0.scalarValue?.asDouble }
        } else if let lambda = node.scalarValue?.asDouble {
            lambdas = Array(repeating: lambda, count: tasks)
        }
        guard lambdas.count == tasks, lambdas.allSatisfy({ $0 >= 0 && $0.isFinite }) else {
            complain(
                "'mask_lambda' must be a number, or a list of \(tasks), one per model", at: node.line,
                advice: "write, for example, 'mask_lambda: 0.4'")
            return nil
        }
        return lambdas
    }

    private mutating func readBlocks(_ mapping: Node.Mapping, isDisjoint: Bool, line: Int) -> StoreRecipe.Sparsity? {
        func whole(_ key: String) -> Int? {
            if case .integer(let number)? = mapping[key]?.scalarValue { number } else { nil }
        }
        guard let n = whole("n"), let m = whole("m"), n >= 1, n <= m, (1...10).contains(where: { 1 << $0 == m }) else {
            complain(
                "'n' and 'm' must say how many entries of each block are kept",
                at: mapping["m"]?.line ?? mapping["n"]?.line ?? line,
                advice:
                    "write, for example, 'n: 64' and 'm: 256'; m must be a power of two up to 1024, and n at most m"
            )
            return nil
        }
        let tail = mapping["tail"]?.plainText ?? "drop"
        guard ["drop", "prorate"].contains(tail) else {
            complain(
                "'tail' must be 'drop' or 'prorate'", at: mapping["tail"]?.line ?? line,
                advice: "write what happens to the last entries of a tensor when fewer than m are left")
            return nil
        }
        return .blocks(n: n, m: m, prorates: tail == "prorate", isDisjoint: isDisjoint)
    }

    private mutating func readValueFormat(_ mapping: Node.Mapping) -> StoreRecipe.Values? {
        guard let node = mapping["values"] else { return StoreRecipe.Values(dtype: nil, grid: nil) }
        guard case .mapping(let grid) = node else {
            return readFloat(mapping, "values").map { StoreRecipe.Values(dtype: $0, grid: nil) }
        }
        checkKeys(of: grid, known: ["bits", "group"], place: "'values'")
        guard let bits = grid["bits"] else {
            complain("'values' has no 'bits'", at: node.line, advice: "write, for example, 'values: {bits: 4, group: 128}'")
            return nil
        }
        guard let number = readBits(bits, "bits"), let group = readGroup(grid) else { return nil }
        return StoreRecipe.Values(dtype: nil, grid: StoreRecipe.Grid(bits: number, group: group))
    }
}
