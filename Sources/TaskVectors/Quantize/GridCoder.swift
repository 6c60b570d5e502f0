import Core
import Operators
import TensorKernels

/// Brings numbers onto a grid.
struct GridCoder: Sendable {
    let grid: Grid
    /// Steps and zeros where they are known before the walk over the elements: of the tensor, or of its rows.
    private let known: [GridPoint]

    /// - Parameter ranges: of the whole tensor or of its rows, as the grid shares its step; none for runs.
    init(_ grid: Grid, ranges: [ValueRange]) {
        self.grid = grid
        known =
            switch grid.sharing {
            case .tensor: ranges.map { .published($0, largestCode: grid.largestCode) }
            case .row: ranges.map { .spanning($0, largestCode: grid.largestCode) }
            case .run: []
            }
    }

    /// Whether the ranges of the numbers have to be known first.
    static func needsRanges(_ grid: Grid) -> Bool {
        if case .run = grid.sharing { false } else { true }
    }

    /// Codes the elements of the grain in hand and decodes them again.
    ///
    /// - Parameters:
    ///   - codes: takes a byte for each code.
    ///   - steps: takes those of runs, as bfloat16, if the grid has runs.
    ///   - decoded: takes the numbers as they will be read.
    func code(
        _ x: UnsafePointer<Float>, of grain: Grain, codes: UnsafeMutablePointer<UInt8>, steps: UnsafeMutableRawPointer,
        decoded: UnsafeMutablePointer<Float>
    ) {
        let kernels = grain.kernels
        switch grid.sharing {
        case .tensor, .row:
            for piece in RowPieces(grain.range, length: grid.runLength(in: grain.shape)) {
                let point = known[piece.row], offset = piece.offset
                kernels.code(x + offset, on: point, largestCode: grid.largestCode, into: codes + offset, count: piece.count)
                kernels.decode(codes + offset, on: point, into: decoded + offset, count: piece.count)
            }
        case .run(let length):
            let count = (grain.count + length - 1) / length
            withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, count)) { room in
                guard let found = room.baseAddress else { return }
                kernels.fitGroups(
                    x, group: length, bits: grid.bits, steps: found, codes: codes, decoded: decoded, count: grain.count)
                kernels.narrow(found, to: .bf16, steps, count: count)
            }
        }
    }

    /// Steps and zeros that are known, as they are stored.
    func writeKnown(to output: Int, of tensor: TensorPasses) throws {
        switch grid.sharing {
        case .tensor:
            try tensor.write(known.map(\.step), to: output)
            try tensor.write(known.map(\.zero), to: output + 1)
        case .row:
            try tensor.write(known.map { UInt16($0.step.bitPattern >> 16) }, to: output)
            try tensor.write(known.map { UInt8($0.zero) }, to: output + 1)
        case .run: break
        }
    }
}
