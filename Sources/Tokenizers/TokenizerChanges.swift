/// How the output's tokenizer differs from the primary model's.
package struct TokenizerChanges: Sendable, Hashable {
    /// The ids of removed tokens.
    package var removed: Set<Int>
    /// New added tokens by ascending id, followed by ordinary tokens of the primary model that become added tokens.
    package var appended: [AddedToken]
    package var isUnion: Bool

    package init(removed: Set<Int> = [], appended: [AddedToken] = [], isUnion: Bool = false) {
        self.removed = removed
        self.appended = appended
        self.isUnion = isUnion
    }

    package var isEmpty: Bool { removed.isEmpty && appended.isEmpty && !isUnion }
}
