/// How the output's tokenizer differs from the one its files are taken from.
package struct TokenizerChanges: Sendable, Hashable {
    /// Ids of tokens that are left out.
    package var removed: Set<Int>
    /// Added tokens that join, by ascending id; then ordinary tokens of the primary's that become added ones.
    package var appended: [AddedToken]
    package var isUnion: Bool

    package init(removed: Set<Int> = [], appended: [AddedToken] = [], isUnion: Bool = false) {
        self.removed = removed
        self.appended = appended
        self.isUnion = isUnion
    }

    package var isEmpty: Bool { removed.isEmpty && appended.isEmpty && !isUnion }
}
