import Core
import Operators
import Recipes
import Work

/// Where a result will differ from mergekit's, and why.
enum MergekitDifferences {
    static func remarks(recipe: Recipe, tensors: [PlannedTensor]) -> [String] {
        var remarks: [String] = []
        let isHalf = { (dtype: DType?) in dtype == .bf16 || dtype == .f16 }
        let readsHalf = tensors.contains { tensor in tensor.sources.contains { isHalf($0.dtype) } }
        if isHalf(recipe.dtype) || (recipe.dtype == nil && readsHalf), recipe.method.value != "linear",
            recipe.method.value != "passthrough"
        {
            remarks.append(
                "computed in float32 and rounded once at the end; mergekit rounds every step to the working type, so the last "
                    + "bits differ"
            )
        }
        let trims = tensors.contains { tensor in
            tensor.values.perInput.contains { values in
                guard case .number(let density)? = values["density"] else { return false }
                return density < 1
            }
        }
        if trims, tensors.contains(where: { $0.randomKey != nil }) {
            remarks.append(
                "dropped entries depend only on --seed, not on the order of work; mergekit draws other random numbers")
        } else if trims {
            remarks.append(
                "of entries equal to a trim threshold, the first are kept; mergekit's choice depends on its sort"
            )
        }
        return remarks
    }
}
