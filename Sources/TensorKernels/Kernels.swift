import CTensorKernels
package import Core

/// The version of the arithmetic: everything that decides the bits of a result, from rounding to the order of sums.
///
/// It is part of the handshake and of the manifest; workers with another version are refused. Raise it with any change after
/// which the same plan may give different bytes.
package let numericsVersion = 4

/// The loops over elements, compiled for one SIMD level. All levels compute the same bits.
///
/// Pointers must point to at least `count` elements.
package struct Kernels: @unchecked Sendable {
    // Unchecked: the pointer is to a constant table of functions.
    let table: UnsafePointer<tk_kernels>

    /// Runs on every processor.
    package static let portable = Kernels(table: tk_portable())
    /// The levels that this processor supports, slowest first.
    package static let available = [tk_portable(), tk_v3(), tk_v4()].compactMap { $0.map(Kernels.init(table:)) }
    /// The fastest level that this processor supports.
    package static let best = available.last ?? portable

    private init(table: UnsafePointer<tk_kernels>) { self.table = table }

    package var name: String { String(cString: table.pointee.name) }

    // MARK: Conversion

    /// Decodes `count` elements of an arithmetic type to float32 (`DType.isArithmetic`; anything else decodes to zeros).
    package func widen(_ dtype: DType, _ source: UnsafeRawPointer, _ target: UnsafeMutablePointer<Float>, count: Int) {
        switch dtype {
        case .f32: UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: count * MemoryLayout<Float>.stride)
        case .bf16: table.pointee.widen_bf16(source, target, count)
        case .f16: table.pointee.widen_f16(source, target, count)
        case .f64: table.pointee.widen_f64(source, target, count)
        case .f8E4M3: table.pointee.widen_e4m3(source, target, count)
        case .f8E5M2: table.pointee.widen_e5m2(source, target, count)
        default:
            assertionFailure("no arithmetic on \(dtype)")
            target.update(repeating: 0, count: count)
        }
    }

    /// Encodes `count` float32 elements, each rounded once, to nearest even (`DType.isArithmetic`; anything else encodes
    /// nothing).
    ///
    /// Numbers outside the type's range become infinite, or NaN in `f8E4M3`, which has no infinity (as in PyTorch). All NaNs
    /// become the same NaN, because a NaN's sign and payload depend on the processor.
    package func narrow(_ source: UnsafePointer<Float>, to dtype: DType, _ target: UnsafeMutableRawPointer, count: Int) {
        switch dtype {
        case .f32: table.pointee.narrow_f32(source, target, count)
        case .bf16: table.pointee.narrow_bf16(source, target, count)
        case .f16: table.pointee.narrow_f16(source, target, count)
        case .f64: table.pointee.narrow_f64(source, target, count)
        case .f8E4M3: table.pointee.narrow_e4m3(source, target, count)
        case .f8E5M2: table.pointee.narrow_e5m2(source, target, count)
        default: assertionFailure("no arithmetic on \(dtype)")
        }
    }

    // MARK: Arithmetic

    /// `target = x − y`; `target` may be `x`.
    package func subtract(
        _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.subtract(x, y, target, count)
    }

    /// `target += x`.
    package func add(_ x: UnsafePointer<Float>, to target: UnsafeMutablePointer<Float>, count: Int) {
        table.pointee.add(x, target, count)
    }

    /// `target = factor · x`; `target` may be `x`.
    package func scale(_ x: UnsafePointer<Float>, by factor: Float, into target: UnsafeMutablePointer<Float>, count: Int) {
        table.pointee.scale(factor, x, target, count)
    }

    /// `target += factor · x`, the product rounded before the sum.
    package func axpy(_ factor: Float, _ x: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, count: Int) {
        table.pointee.axpy(factor, x, target, count)
    }

    // MARK: Statistics

    func histogramHigh(_ x: UnsafePointer<Float>, _ bins: UnsafeMutablePointer<UInt32>, count: Int) {
        table.pointee.histogram_high(x, bins, count)
    }

    func histogramLow(
        _ x: UnsafePointer<Float>, high: UInt32, _ bins: UnsafeMutablePointer<UInt32>, count: Int
    ) {
        table.pointee.histogram_low(x, high, bins, count)
    }

    /// The number of elements with exactly this magnitude pattern.
    package func countEqual(_ x: UnsafePointer<Float>, pattern: UInt32, count: Int) -> Int {
        table.pointee.count_equal(x, pattern, count)
    }

    /// `Σ xᵢyᵢ` in float64.
    package func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Double {
        table.pointee.dot(x, y, count)
    }
}

extension Kernels: CustomStringConvertible {
    package var description: String { name }
}
