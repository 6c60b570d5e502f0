import Operators
import TensorKernels

/// Encodes a dense vector in its storage format, and decodes it again.
struct FormatCoder: Sendable {
    let format: StorageFormat
    let grid: GridCoder?
    let signs: SignCoder?

    /// - Parameters:
    ///   - ranges: those that the grid needs (`GridCoder`).
    ///   - scales: those of signs.
    init(_ format: StorageFormat, ranges: [ValueRange] = [], scales: [Float] = []) {
        self.format = format
        grid = format.grid.map { GridCoder($0, ranges: ranges) }
        signs = format.signScaling.map { SignCoder($0, scales: scales) }
    }

    /// Computes the numbers as they will be read, and stores nothing.
    func code(_ x: UnsafePointer<Float>, of tile: Tile, decoded: UnsafeMutablePointer<Float>) {
        code(x, of: tile, into: tile.workspace { CodeBuffer() }.target, decoded: decoded)
    }

    /// Where codes, and the scales of groups, go.
    struct Target {
        let codes: UnsafeMutablePointer<UInt8>
        let scales: UnsafeMutableRawPointer
    }

    func code(
        _ x: UnsafePointer<Float>, of tile: Tile, into target: Target, decoded: UnsafeMutablePointer<Float>
    ) {
        switch format {
        case .dense(.grid): grid?.code(x, of: tile, codes: target.codes, scales: target.scales, decoded: decoded)
        case .dense(.raw(let dtype)):
            withUnsafeTemporaryAllocation(byteCount: tile.count * 4, alignment: 64) { buffer in
                guard let narrow = buffer.baseAddress else { return }
                tile.kernels.narrow(x, to: dtype, narrow, count: tile.count)
                tile.kernels.widen(dtype, narrow, decoded, count: tile.count)
            }
        case .thinned(let grid):
            ThinnedCoder(grid: grid).code(x, of: tile, codes: target.codes, scales: target.scales, decoded: decoded)
        case .signs: signs?.code(x, of: tile, codes: target.codes, decoded: decoded)
        case .zero, .mask, .sparse: decoded.update(repeating: 0, count: tile.count)
        }
    }
}

/// A buffer for the codes and scales of a tile.
final class CodeBuffer {
    static let byteCount = FixedTree.tileElements + FixedTree.tileElements / 4

    let target = FormatCoder.Target(
        codes: .allocate(capacity: FixedTree.tileElements),
        scales: .allocate(byteCount: FixedTree.tileElements / 4, alignment: 64))

    deinit {
        target.codes.deallocate()
        target.scales.deallocate()
    }
}

/// Writes a dense vector in its storage format to the outputs from `firstOutput` on.
struct FormatWriter: Sendable {
    private let coder: FormatCoder
    private let firstOutput: Int
    /// Of each output; `nil` for one that is written as a whole.
    let rates: [ChunkRate?]

    init(_ coder: FormatCoder, firstOutput: Int, shape: [Int]) {
        self.coder = coder
        self.firstOutput = firstOutput
        rates = coder.format.tensors(shape: shape).map(\.rate)
    }

    var nextOutput: Int { firstOutput + rates.count }

    /// - Parameter decoded: gets the numbers as they will be read.
    func write(_ x: UnsafePointer<Float>, of tile: Tile, buffer: ChunkBuffer, decoded: UnsafeMutablePointer<Float>) {
        switch coder.format {
        case .dense(.raw(let dtype)):
            let place = buffer.place(in: firstOutput)
            tile.kernels.narrow(x, to: dtype, place, count: tile.count)
            tile.kernels.widen(dtype, place, decoded, count: tile.count)
        case .dense(.grid), .signs:
            let target = target(in: buffer, tile)
            coder.code(x, of: tile, into: target, decoded: decoded)
            tile.kernels.pack(
                target.codes, bits: coder.format.grid?.bits ?? 1, into: buffer.place(in: firstOutput), count: tile.count)
        case .thinned(let grid):
            let target = target(in: buffer, tile)
            coder.code(x, of: tile, into: target, decoded: decoded)
            tile.kernels.pack(
                target.codes, bits: grid.bits, into: buffer.place(in: firstOutput), count: grid.kept(of: tile.count))
        case .zero, .mask, .sparse: decoded.update(repeating: 0, count: tile.count)
        }
    }

    /// Writes the scales only.
    func writeScales(_ x: UnsafePointer<Float>, of tile: Tile, buffer: ChunkBuffer, decoded: UnsafeMutablePointer<Float>) {
        coder.code(x, of: tile, into: target(in: buffer, tile), decoded: decoded)
    }

    /// Codes go to a buffer from which they are packed; the scales of groups go directly to their output.
    private func target(in buffer: ChunkBuffer, _ tile: Tile) -> FormatCoder.Target {
        let own = tile.workspace { CodeBuffer() }.target
        guard rates.count == 2, rates[1] != nil else { return own }
        return FormatCoder.Target(codes: own.codes, scales: buffer.place(in: firstOutput + 1))
    }

    /// Writes the scales and zero points that are known before the elements are encoded.
    func writeKnown(of tensor: TensorPasses) throws {
        try coder.grid?.writeKnown(to: firstOutput + 1, of: tensor)
        try coder.signs?.writeScales(to: firstOutput + 1, of: tensor)
    }
}
