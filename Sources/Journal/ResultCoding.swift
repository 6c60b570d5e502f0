import Core
import FoundationEssentials
import Work

/// A shard's result in few bytes: for each output tensor the number of its blocks and their digests, then the statistics in JSON.
/// Numbers have 4 bytes, the low one first.
enum ResultCoding {
    static func encode(_ result: ShardResult) throws -> Data {
        var bytes: [UInt8] = []
        func append(_ number: Int) { bytes += (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
        append(result.digests.count)
        for digests in result.digests {
            append(digests.count)
            for digest in digests { bytes += digest.bytes }
        }
        return Data(bytes) + (result.statistics.isEmpty ? Data() : try JSONEncoder().encode(result.statistics))
    }

    /// - Throws: `badData` for bytes that `encode` does not make.
    static func decode(_ data: Data) throws -> ShardResult {
        var rest = Array(data)[...]
        func take(_ count: Int) throws(TesseraError) -> ArraySlice<UInt8> {
            guard count <= rest.count else { throw TesseraError(.badData, "the journal holds half a result of a shard") }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
        func number() throws(TesseraError) -> Int { try take(4).reversed().reduce(0) { $0 << 8 | Int($1) } }
        var digests: [[Digest]] = []
        for _ in 0..<(try number()) {
            var blocks: [Digest] = []
            for _ in 0..<(try number()) {
                guard let digest = Digest(bytes: try take(Digest.byteCount)) else { break }
                blocks.append(digest)
            }
            digests.append(blocks)
        }
        return ShardResult(
            digests: digests, statistics: rest.isEmpty ? [] : try JSONDecoder().decode([TensorStatistics?].self, from: Data(rest))
        )
    }
}
