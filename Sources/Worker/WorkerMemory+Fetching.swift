import Protocol

extension WorkerMemory {
    /// Bytes of a piece of fetched input, a power of two. Small enough that every thread can hold pieces of all models of a merge
    /// at once; otherwise each would be fetched again for every tile.
    var fetchPiece: Int {
        let most = min(FetchCache.largestPiece, max(Self.smallestPiece, fetched / (threads * Self.piecesPerThread)))
        return 1 << (Int.bitWidth - 1 - most.leadingZeroBitCount)
    }

    private static let piecesPerThread = 32, smallestPiece = 64 << 10

    /// The bytes of fetched input that may be cached. A piece that just arrived is in memory twice, as a frame and as a piece.
    var fetchCache: Int { max(0, fetched - 2 * threads * fetchPiece) }
}
