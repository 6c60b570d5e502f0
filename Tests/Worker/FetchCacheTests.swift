import Core
import Dispatch
import Foundation
import Synchronization
import TestSupport
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

    /// The order of use decides, whatever the order of arrival.
    @Test func piecesAreEvictedInTheOrderOfTheirUse() throws {
        defer { scratch.deallocate() }
        let cache = FetchCache(fetcher: source, capacity: 3 * 100, pieceBytes: 100), file = try file(size: 1000)
        func use(_ piece: Int) throws { _ = try read(100 * piece..<100 * piece + 1, of: file, cache) }
        for piece in [0, 1, 2, 1, 0, 2, 3, 4, 2, 5, 0] { try use(piece) }
        // 3 takes the place of 1, 4 that of 0, 2 is used again, 5 takes the place of 3, and 0 that of 4.
        #expect(source.asked.withLock { $0.map { $0.lowerBound / 100 } } == [0, 1, 2, 3, 4, 5, 0])
        for piece in [2, 5, 0] { try use(piece) }
        #expect(source.asked.withLock { $0.count } == 7, "those three are kept")
        for piece in [4, 3] { try use(piece) }
        #expect(source.asked.withLock { $0.map { $0.lowerBound / 100 } }.suffix(2) == [4, 3])
    }

    /// Answers only when it is told to.
    private final class GatedSource: RangeFetcher {
        let asked = Atomic(0)
        let gate = DispatchSemaphore(value: 0)
        let fails = Atomic(false)

        func fetch(_ file: InputFile, _ range: Range<Int>) throws -> [UInt8] {
            asked.add(1, ordering: .relaxed)
            gate.wait()
            if fails.load(ordering: .relaxed) { throw TesseraError(.io, "broken") }
            return Source.bytes(range)
        }
    }

    /// Starts readers of one piece, and lets the first answer go once all of them had time to ask.
    private func readAtOnce(_ cache: FetchCache, _ source: GatedSource, readers: Int) async throws -> [Result<[UInt8], any Error>]
    {
        let file = try file(size: 1000), results = Mutex<[Result<[UInt8], any Error>]>([])
        for _ in 0..<readers {
            Thread.detachNewThread {
                var scratch = [UInt8](repeating: 0, count: 10)
                let result = Result {
                    try scratch.withUnsafeMutableBytes { try cache.open(file).withBytes(7..<17, scratch: $0) { Array($0) } }
                }
                results.withLock { $0.append(result) }
            }
        }
        try await eventually("a fetch") { source.asked.load(ordering: .relaxed) > 0 }
        // Whoever did not ask within this time finds the piece, or the failure is another one's: neither makes a test fail that
        // should pass.
        try await Task.sleep(for: .milliseconds(100))
        for _ in 0..<readers { source.gate.signal() }
        try await eventually("all readers") { results.withLock { $0.count } == readers }
        return results.withLock { $0 }
    }

    @Test func aPieceThatManyAskForIsFetchedOnce() async throws {
        defer { scratch.deallocate() }
        let source = GatedSource(), cache = FetchCache(fetcher: source, capacity: 1 << 20, pieceBytes: 100)
        let results = try await readAtOnce(cache, source, readers: 8)
        for result in results { #expect(try result.get() == Source.bytes(7..<17)) }
        #expect(source.asked.load(ordering: .relaxed) == 1)
    }

    @Test func aFailureReachesAllWhoWaitAndIsForgotten() async throws {
        defer { scratch.deallocate() }
        let source = GatedSource(), cache = FetchCache(fetcher: source, capacity: 1 << 20, pieceBytes: 100)
        source.fails.store(true, ordering: .relaxed)
        for result in try await readAtOnce(cache, source, readers: 4) {
            #expect(#expect(throws: TesseraError.self) { try result.get() }?.code == .io)
        }
        source.fails.store(false, ordering: .relaxed)
        for _ in 0..<4 { source.gate.signal() }
        #expect(try read(7..<17, of: try file(size: 1000), cache) == Source.bytes(7..<17))
    }
}
