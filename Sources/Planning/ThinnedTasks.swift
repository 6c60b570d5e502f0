import Operators
import TaskVectors

/// Merges of thinned tasks by methods that compare the tasks entry by entry.
enum ThinnedTasks {
    /// What the user should know: where each task keeps other elements, an entry hardly ever meets the same one of another task.
    static func remarks(_ method: any MergeMethod.Type, _ inputs: InputSet) -> [String] {
        guard method.comparesTasks else { return [] }
        let thinned = inputs.inputs.filter { input in
            guard let task = input.task?.task, task.masks == .own else { return false }
            return task.formats.contains { if case .thinned(let grid) = $0 { grid.every > 1 } else { false } }
        }
        guard thinned.count > 1, let first = thinned.first else { return [] }
        return [
            "'\(method.name)' compares tasks entry by entry, and '\(first.reference)' and \(thinned.count - 1) more keep other "
                + "elements each: the merge goes further than one of the fine-tunes. Make the store with 'masks: common', use "
                + "'task_arithmetic', or lower the weights"
        ]
    }
}
