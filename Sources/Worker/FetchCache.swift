package import Core
import Synchronization
package import Work

/// Asks another host for ranges of a file. Calls wait on the calling thread.
package protocol RangeFetcher: Sendable {
    /// - Returns: exactly the bytes of `range` of `file`.
    func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8]
}

/// Input files that this host does not have, read piece by piece from the coordinator and kept while there is memory.
///
/// Pieces are known by the file and its version, so that two jobs over one file share them, and a file that was replaced is fetched anew. The least recently used piece goes first;
/// a reader keeps the piece that it holds alive.
package final class FetchCache: InputProvider {
    /// A piece at most, and what is asked for unless memory is short: large enough to keep a fast link busy.
    package static let largestPiece = 4 << 20

    fileprivate struct Key: Hashable {
        let file: InputFile
        let piece: Int
    }

    fileprivate struct Contents {
        var pieces: [Key: [UInt8]] = [:]
        /// Least recently used first.
        var order: [Key] = []
        var bytes = 0
    }

    private let fetcher: any RangeFetcher
    private let capacity: Int
    /// Bytes of one request, the unit of keeping.
    fileprivate let pieceBytes: Int
    private let contents = Mutex(Contents())

    /// - Parameter capacity: bytes that may be kept, beside the pieces that readers hold.
    package init(fetcher: any RangeFetcher, capacity: Int, pieceBytes: Int = largestPiece) {
        self.fetcher = fetcher
        self.capacity = capacity
        self.pieceBytes = pieceBytes
    }

    package func open(_ file: InputFile) -> any ByteSource { FetchedFile(file: file, cache: self) }

    fileprivate func piece(_ index: Int, of file: InputFile) throws -> [UInt8] {
        let key = Key(file: file, piece: index)
        if let kept = contents.withLock({ $0.use(key) }) { return kept }
        let start = index * pieceBytes
        let bytes = try fetcher.fetch(file, start..<min(file.size, start + pieceBytes))
        contents.withLock { $0.keep(key, bytes, capacity: capacity) }
        return bytes
    }
}

extension FetchCache.Contents {
    fileprivate mutating func use(_ key: FetchCache.Key) -> [UInt8]? {
        guard let bytes = pieces[key] else { return nil }
        order.removeAll { $0 == key }
        order.append(key)
        return bytes
    }

    fileprivate mutating func keep(_ key: FetchCache.Key, _ piece: [UInt8], capacity: Int) {
        guard pieces[key] == nil, piece.count <= capacity else { return }
        while bytes + piece.count > capacity, let oldest = order.first {
            order.removeFirst()
            bytes -= pieces.removeValue(forKey: oldest)?.count ?? 0
        }
        pieces[key] = piece
        order.append(key)
        bytes += piece.count
    }
}

private struct FetchedFile: ByteSource {
    let file: InputFile
    let cache: FetchCache

    var size: Int { file.size }
    var identity: String { file.version }

    func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        guard range.lowerBound >= 0, range.upperBound <= size, range.count <= scratch.count else {
            throw TesseraError(
                .badData, "bytes \(range.lowerBound)..<\(range.upperBound) lie outside the file of \(size) bytes", file: file.path
            )
        }
        var position = range.lowerBound
        while position < range.upperBound {
            let index = position / cache.pieceBytes
            let bytes = try cache.piece(index, of: file)
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

    /// Pieces are fetched when they are read.
    func prefetch(_ range: Range<Int>) {}

    /// Pieces go when the cache is full.
    func release(_ range: Range<Int>) {}
}
