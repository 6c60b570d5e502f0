import Core
import Synchronization
import Testing
import Work
import Worker

@Suite struct FetchCacheTests {
    /// Makes up every byte from its place, and remembers what it was asked for.
    private final class Source: RangeFetcher {
        let asked = Mutex<[Range<Int>]>([])

        func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8] {
            if file.path == "gone" { throw TesseraError(.inputMissing, "gone", file: file.path) }
            asked.withLock { $0.append(range) }
            return Self.bytes(range)
        }

        static func bytes(_ range: Range<Int>) -> [UInt8] { range.map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 9) } }
    }

    private let source = Source()
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 3 * FetchCache.largestPiece, alignment: 64)

    private func file(_ path: String = "f", size: Int = 2 * FetchCache.largestPiece + 1000) throws -> InputFile {
        InputFile(path: path, size: size, headerDigest: try .sha256(of: Array(path.utf8)))
    }

    private func read(_ range: Range<Int>, of file: InputFile, _ cache: FetchCache) throws -> [UInt8] {
        try cache.open(file).withBytes(range, scratch: scratch) { Array($0) }
    }

    @Test func anyRangeHasTheBytesOfTheFile() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 100 << 20), file = try file(), piece = FetchCache.largestPiece
        for range in [0..<1, 5..<5, piece - 1..<piece + 1, 0..<file.size, file.size - 1..<file.size, piece..<2 * piece] {
            #expect(try read(range, of: file, cache) == Source.bytes(range))
        }
        #expect(source.asked.withLock { $0.count } == 3, "each piece is fetched once")
    }

    @Test func theLeastRecentlyUsedPieceGoesFirst() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 2 * FetchCache.largestPiece), file = try file()
        let pieces = [0, FetchCache.largestPiece, 2 * FetchCache.largestPiece].map { $0..<$0 + 1 }
        for index in [0, 1, 0, 2, 0, 1] { _ = try read(pieces[index], of: file, cache) }
        // 0 and 1 fill the cache, 0 is used again, 2 is small and takes the place of 1, which has to be fetched anew.
        #expect(source.asked.withLock { $0.map { $0.lowerBound / FetchCache.largestPiece } } == [0, 1, 2, 1])
    }

    @Test func aCacheWithoutMemoryStillReads() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 0), file = try file()
        for _ in 0..<2 { #expect(try read(10..<20, of: file, cache) == Source.bytes(10..<20)) }
        #expect(source.asked.withLock { $0.count } == 2)
    }

    @Test func nothingIsReadOutsideTheFile() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 1 << 20), file = try file(size: 100)
        #expect(throws: TesseraError.self) { try read(99..<101, of: file, cache) }
        #expect(source.asked.withLock { $0.isEmpty })
    }

    @Test func failuresReachTheReader() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 1 << 20), file = try file("gone")
        #expect(#expect(throws: TesseraError.self) { try read(0..<1, of: file, cache) }?.code == .inputMissing)
    }
}
