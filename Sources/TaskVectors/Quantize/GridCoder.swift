import Core
import Operators
import TensorKernels

/// Quantizes numbers on a grid.
struct GridCoder: Sendable {
    let grid: Grid
    /// The scales and zero points of the tensor or its rows, which are known before elements are encoded. Empty for groups.
    private let known: [GridPoint]

    /// - Parameter ranges: of the whole tensor, or of each row, depending on the granularity; empty for groups.
    init(_ grid: Grid, ranges: [ValueRange]) {
        self.grid = grid
        known =
            switch grid.granularity {
            case .tensor: ranges.map { .published($0, largestCode: grid.largestCode) }
            case .row: ranges.map { .spanning($0, largestCode: grid.largestCode) }
            case .group: []
            }
    }

    /// Whether the ranges of the numbers must be known before any is encoded.
    static func needsRanges(_ grid: Grid) -> Bool {
        if case .group = grid.granularity { false } else { true }
    }

    /// Encodes the elements of the current tile, and decodes them again.
    ///
    /// - Parameters:
    ///   - codes: gets one byte per code.
    ///   - scales: gets the bfloat16 scales of groups, if the grid has groups.
    ///   - decoded: gets the numbers as they will be read.
    func code(
        _ x: UnsafePointer<Float>, of tile: Tile, codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutableRawPointer,
        decoded: UnsafeMutablePointer<Float>
    ) {
        let kernels = tile.kernels
        switch grid.granularity {
        case .tensor, .row:
            for piece in RowPieces(tile.range, length: grid.groupLength(in: tile.shape)) {
                let point = known[piece.row], offset = piece.offset
                kernels.code(x + offset, on: point, largestCode: grid.largestCode, into: codes + offset, count: piece.count)
                kernels.decode(codes + offset, on: point, into: decoded + offset, count: piece.count)
            }
        case .group(let length):
            let count = (tile.count + length - 1) / length
            withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, count)) { buffer in
                guard let found = buffer.baseAddress else { return }
                kernels.fitGroups(
                    x, group: length, bits: grid.bits, scales: found, codes: codes, decoded: decoded, count: tile.count)
                kernels.narrow(found, to: .bf16, scales, count: count)
            }
        }
    }

    /// Writes the known scales and zero points.
    func writeKnown(to output: Int, of tensor: TensorPasses) throws {
        switch grid.granularity {
        case .tensor:
            try tensor.write(known.map(\.scale), to: output)
            try tensor.write(known.map(\.zero), to: output + 1)
        case .row:
            try tensor.write(known.map { UInt16($0.scale.bitPattern >> 16) }, to: output)
            try tensor.write(known.map { UInt8($0.zero) }, to: output + 1)
        case .group: break
        }
    }
}
