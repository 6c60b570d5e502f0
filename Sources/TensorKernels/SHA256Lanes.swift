internal import CTensorKernels
package import Core

/// A SHA-256 hash that goes on from call to call, and messages that are hashed beside it: two of all of them at once, as by
/// `SHA256Pair`.
package struct SHA256Lanes: ~Copyable {
    /// Where the processor has the instructions.
    private let lanes: InstructionLanes?
    private let hash: SHA256

    /// - Parameter usesInstructions: the processor's, if it has them; otherwise libcrypto computes one hash after the other.
    /// - Throws: `internal` if libcrypto lacks SHA-256 or memory.
    package init(usesInstructions: Bool = true) throws(TesseraError) {
        hash = try SHA256()
        lanes = usesInstructions && SHA256Pair.hasInstructions ? InstructionLanes() : nil
    }

    /// Adds bytes to the hash, and hashes whole messages.
    ///
    /// - Returns: the messages' digests.
    package func update(
        _ bytes: UnsafeRawBufferPointer, beside messages: [UnsafeRawBufferPointer]
    ) throws(TesseraError) -> [Digest] {
        if let lanes { return try lanes.update(bytes, beside: messages) }
        hash.update(bytes)
        var digests: [Digest] = []
        for message in messages {
            let own = try SHA256()
            own.update(message)
            digests.append(try own.finalize())
        }
        return digests
    }

    /// The digest of all updates. Consumes the value, since later updates would be lost.
    package consuming func finalize() throws(TesseraError) -> Digest {
        if let lanes { return try lanes.finalize() }
        return try hash.finalize()
    }
}

private final class InstructionLanes {
    /// The hash that goes on, and those of two messages.
    private let hashes: UnsafeMutablePointer<tk_sha256>

    init() {
        hashes = .allocate(capacity: 3)
        hashes.initialize(repeating: tk_sha256(), count: 3)
        tk_sha256_begin(hashes)
    }

    deinit { hashes.deallocate() }

    private struct Lane {
        let hash: UnsafeMutablePointer<tk_sha256>
        /// `nil` for the hash that goes on.
        let message: Int?
        var rest: UnsafeRawBufferPointer
    }

    func update(
        _ bytes: UnsafeRawBufferPointer, beside messages: [UnsafeRawBufferPointer]
    ) throws(TesseraError) -> [Digest] {
        var digests = messages.map { _ in Digest.none }, next = 0, free = [hashes + 1, hashes + 2]
        var lanes = bytes.isEmpty ? [] : [Lane(hash: hashes, message: nil, rest: bytes)]
        while true {
            while lanes.count < 2, next < messages.count, let hash = free.popLast() {
                tk_sha256_begin(hash)
                lanes.append(Lane(hash: hash, message: next, rest: messages[next]))
                next += 1
            }
            guard !lanes.isEmpty else { return digests }
            advance(&lanes)
            for lane in lanes where lane.rest.isEmpty {
                guard let message = lane.message else { continue }
                digests[message] = try Digest(ending: lane.hash)
                free.append(lane.hash)
            }
            lanes.removeAll { $0.rest.isEmpty }
        }
    }

    /// Advances until one of the lanes has nothing left, and in whole blocks of the hash until then.
    private func advance(_ lanes: inout [Lane]) {
        let count = lanes.reduce(.max) { min($0, $1.rest.count) }
        var pieces: [UnsafeRawBufferPointer] = []
        for index in lanes.indices {
            let rest = lanes[index].rest, taken = rest.count == count ? count : count / 64 * 64
            pieces.append(UnsafeRawBufferPointer(rebasing: rest[..<taken]))
            lanes[index].rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
        // A buffer without bytes may lack an address.
        let nothing = UnsafeRawPointer(hashes)
        if lanes.count == 2 {
            tk_sha256_update_two(
                lanes[0].hash, pieces[0].baseAddress ?? nothing, pieces[0].count,
                lanes[1].hash, pieces[1].baseAddress ?? nothing, pieces[1].count)
        } else {
            tk_sha256_update(lanes[0].hash, pieces[0].baseAddress ?? nothing, pieces[0].count)
        }
    }

    func finalize() throws(TesseraError) -> Digest { try Digest(ending: hashes) }
}
