/// Names of the tasks of a store, which are parts of file names and of model references (`STORE#TASK`).
package enum TaskName {
    /// At most 128 letters, digits, `-`, `_` and `.`, the first of which is no dot. `shared` is reserved for the vector that all
    /// tasks share.
    package static func isValid(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 128 && !name.hasPrefix(".") && name != "shared"
            && name.utf8.allSatisfy { byte in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || "-_.".utf8.contains(byte)
            }
    }
}
