internal import CTensorKernels

/// CRC-32C (Castagnoli), which guards every frame and block on the wire.
package enum CRC32C {
    /// - Parameter seed: the checksum of what came before, 0 to begin.
    package static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        bytes.baseAddress.map { tk_crc32c(seed, $0, bytes.count) } ?? seed
    }

    /// The same by table lookup, for processors without the instruction.
    package static func checksumByTable(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        bytes.baseAddress.map { tk_crc32c_by_table(seed, $0, bytes.count) } ?? seed
    }
}
