package import Core
import Dispatch
import Synchronization
package import Work

/// Fetches ranges of a file from another host. Calls block the calling thread.
package protocol RangeFetcher: Sendable {
    /// - Returns: exactly the bytes of `range` of `file`.
    func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8]
}

/// Input files that this host does not have, fetched piece by piece from the coordinator and cached while memory allows.
///
/// Pieces are keyed by file and version, so that two jobs over one file share them and a replaced file is fetched anew. The least
/// recently used piece is evicted first; a reader keeps its current piece alive. A piece is fetched once, however many threads
/// ask for it at the same time.
package final class FetchCache: InputProvider {
    /// The largest piece, used unless memory is short: large enough to keep a fast link busy.
    package static let largestPiece = 4 << 20

    fileprivate struct Key: Hashable, Sendable {
        let file: FileKey
        let piece: Int
    }

    private struct Contents {
        var pieces: RecentlyUsed<Key, [UInt8]>
        var coming: [Key: Arrival] = [:]
    }

    /// The result of a lookup: a cached piece, a piece that another thread is fetching, or one that the caller has to fetch.
    private enum Found {
        case kept([UInt8])
        case coming(Arrival)
        case missing(Arrival)
    }

    private let fetcher: any RangeFetcher
    /// Bytes of one request, the unit of caching.
    fileprivate let pieceBytes: Int
    private let contents: Mutex<Contents>

    /// - Parameter capacity: bytes to cache, not counting the pieces that readers hold.
    package init(fetcher: any RangeFetcher, capacity: Int, pieceBytes: Int = largestPiece) {
        self.fetcher = fetcher
        self.pieceBytes = pieceBytes
        contents = Mutex(Contents(pieces: RecentlyUsed(capacity: capacity)))
    }

    package func open(_ file: InputFile) -> any ByteSource { FetchedFile(file: file, key: FileKey(file), cache: self) }

    fileprivate func piece(_ index: Int, of file: FileKey) throws -> [UInt8] {
        let key = Key(file: file, piece: index)
        switch look(for: key) {
        case .kept(let piece): return piece
        case .coming(let arrival): return try arrival.wait()
        case .missing(let arrival):
            let start = index * pieceBytes, file = file.file
            let result = Result { try fetcher.fetch(file, start..<min(file.size, start + pieceBytes)) }
            // Failures are not cached: the next reader tries again.
            contents.withLock { contents in
                contents.coming[key] = nil
                if case .success(let piece) = result { contents.pieces.keep(piece, for: key, cost: piece.count) }
            }
            arrival.finish(result)
            return try result.get()
        }
    }

    private func look(for key: Key) -> Found {
        contents.withLock { contents in
            if let piece = contents.pieces.use(key) { return .kept(piece) }
            if let arrival = contents.coming[key] { return .coming(arrival) }
            let arrival = Arrival()
            contents.coming[key] = arrival
            return .missing(arrival)
        }
    }
}

/// A file as a key whose hash is computed once: readers look pieces up for every tile.
private final class FileKey: Hashable, Sendable {
    let file: InputFile
    private let hash: Int

    init(_ file: InputFile) {
        self.file = file
        hash = file.hashValue
    }

    static func == (left: FileKey, right: FileKey) -> Bool {
        left === right || left.hash == right.hash && left.file == right.file
    }

    func hash(into hasher: inout Hasher) { hasher.combine(hash) }
}

/// A piece that one thread is fetching and others wait for.
private final class Arrival: Sendable {
    private let result = Mutex<Result<[UInt8], any Error>?>(nil)
    private let finished = DispatchSemaphore(value: 0)

    func finish(_ result: Result<[UInt8], any Error>) {
        self.result.withLock { $0 = result }
        finished.signal()
    }

    func wait() throws -> [UInt8] {
        finished.wait()
        // Wakes the next waiting thread.
        finished.signal()
        return try result.withLock { $0 }?.get() ?? []
    }
}

private struct FetchedFile: ByteSource {
    let file: InputFile
    let key: FileKey
    let cache: FetchCache

    var size: Int { file.size }
    var identity: String { file.version }

    func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: scratch, file: file.path)
        var position = range.lowerBound
        while position < range.upperBound {
            let index = position / cache.pieceBytes
            let bytes = try cache.piece(index, of: key)
            let start = position - index * cache.pieceBytes
            let length = min(range.upperBound - position, bytes.count - start)
            bytes.withUnsafeBytes { piece in
                UnsafeMutableRawBufferPointer(rebasing: scratch[(position - range.lowerBound)...])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: piece[start..<start + length]))
            }
            position += length
        }
        return try body(UnsafeRawBufferPointer(rebasing: scratch[..<range.count]))
    }

    /// The coordinator looks after the file with each piece.
    func checkUnchanged() throws(TesseraError) {}

    /// Pieces are fetched when they are read.
    func prefetch(_ range: Range<Int>) {}

    /// Does nothing: pieces are evicted when the cache is full.
    func release(_ range: Range<Int>) {}
}
