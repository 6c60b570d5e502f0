internal import CTensorKernels
package import Core

/// Two SHA-256 hashes that advance at once. A hash's SHA instructions wait for one another, so that two hashes in turns take
/// little longer than one.
package struct SHA256Pair: ~Copyable {
    /// Where the processor has the instructions.
    private let pair: InstructionPair?
    private let first, second: SHA256

    /// - Parameter usesInstructions: the processor's, if it has them; otherwise libcrypto computes one hash after the other.
    /// - Throws: `internal` if libcrypto lacks SHA-256 or memory.
    package init(usesInstructions: Bool = true) throws(TesseraError) {
        let first = try SHA256(), second = try SHA256()
        self.first = first
        self.second = second
        pair = usesInstructions && Self.hasInstructions ? InstructionPair() : nil
    }

    /// Whether the processor has the instructions. Asked once: a virtual machine's answer takes microseconds.
    static let hasInstructions = tk_sha256_is_available()

    /// Adds bytes to each hash; either may get none. Both advance at once as long as they got multiples of 64 bytes before.
    package func update(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        if pair?.update(first, second) == nil {
            self.first.update(first)
            self.second.update(second)
        }
    }

    /// The digests of all updates. Consumes the value, since later updates would be lost.
    package consuming func finalize() throws(TesseraError) -> (Digest, Digest) {
        if let digests = try pair?.digests() { return digests }
        return (try first.finalize(), try second.finalize())
    }
}

private final class InstructionPair {
    private let hashes: UnsafeMutablePointer<tk_sha256>

    init() {
        hashes = .allocate(capacity: 2)
        hashes.initialize(repeating: tk_sha256(), count: 2)
        for index in 0..<2 { tk_sha256_begin(hashes + index) }
    }

    deinit { hashes.deallocate() }

    func update(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        // A buffer without bytes may lack an address.
        let nothing = UnsafeRawPointer(hashes)
        tk_sha256_update_two(
            hashes, first.baseAddress ?? nothing, first.count, hashes + 1, second.baseAddress ?? nothing, second.count)
    }

    /// Ends both.
    func digests() throws(TesseraError) -> (Digest, Digest) { (try Digest(ending: hashes), try Digest(ending: hashes + 1)) }
}

extension Digest {
    init(ending hash: UnsafeMutablePointer<tk_sha256>) throws(TesseraError) {
        var bytes = [UInt8](repeating: 0, count: Digest.byteCount)
        tk_sha256_end(hash, &bytes)
        guard let digest = Digest(bytes: bytes) else { throw TesseraError(.internal, "a digest of \(bytes.count) bytes") }
        self = digest
    }
}
