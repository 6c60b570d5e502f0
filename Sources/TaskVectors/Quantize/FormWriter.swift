import Operators
import TensorKernels

/// Brings a dense vector into its form and back.
struct FormCoder: Sendable {
    let form: VectorForm
    let grid: GridCoder?

    /// - Parameter ranges: what the grid needs to know, if it has one.
    init(_ form: VectorForm, ranges: [ValueRange]) {
        self.form = form
        grid = form.grid.map { GridCoder($0, ranges: ranges) }
    }

    /// The numbers as they will be read.
    func code(_ x: UnsafePointer<Float>, of grain: Grain, decoded: UnsafeMutablePointer<Float>) {
        code(x, of: grain, into: grain.workspace { CodeRoom() }.target, decoded: decoded)
    }

    /// Where codes and steps of runs go.
    struct Target {
        let codes: UnsafeMutablePointer<UInt8>
        let steps: UnsafeMutableRawPointer
    }

    func code(
        _ x: UnsafePointer<Float>, of grain: Grain, into target: Target, decoded: UnsafeMutablePointer<Float>
    ) {
        switch form {
        case .dense(.grid): grid?.code(x, of: grain, codes: target.codes, steps: target.steps, decoded: decoded)
        case .dense(.raw(let dtype)):
            withUnsafeTemporaryAllocation(byteCount: grain.count * 4, alignment: 64) { room in
                guard let narrow = room.baseAddress else { return }
                grain.kernels.narrow(x, to: dtype, narrow, count: grain.count)
                grain.kernels.widen(dtype, narrow, decoded, count: grain.count)
            }
        case .zero, .mask, .sparse: decoded.update(repeating: 0, count: grain.count)
        }
    }
}

/// Room for the codes and steps of a grain.
final class CodeRoom {
    static let byteCount = FixedTree.blockElements + FixedTree.blockElements / 4

    let target = FormCoder.Target(
        codes: .allocate(capacity: FixedTree.blockElements),
        steps: .allocate(byteCount: FixedTree.blockElements / 4, alignment: 64))

    deinit {
        target.codes.deallocate()
        target.steps.deallocate()
    }
}

/// Writes a dense vector's form into the outputs from `firstOutput` on.
struct FormWriter: Sendable {
    private let coder: FormCoder
    private let firstOutput: Int
    /// Of each output; `nil` for those that are written at once.
    let rates: [StretchRate?]

    init(_ coder: FormCoder, firstOutput: Int, shape: [Int]) {
        self.coder = coder
        self.firstOutput = firstOutput
        rates = coder.form.tensors(shape: shape).map(\.rate)
    }

    var nextOutput: Int { firstOutput + rates.count }

    /// - Parameter decoded: takes the numbers as they will be read.
    func write(_ x: UnsafePointer<Float>, of grain: Grain, room: StretchRoom, decoded: UnsafeMutablePointer<Float>) {
        switch coder.form {
        case .dense(.raw(let dtype)):
            let place = room.place(in: firstOutput)
            grain.kernels.narrow(x, to: dtype, place, count: grain.count)
            grain.kernels.widen(dtype, place, decoded, count: grain.count)
        case .dense(.grid(let grid)):
            let target = target(in: room, grain)
            coder.code(x, of: grain, into: target, decoded: decoded)
            grain.kernels.pack(target.codes, bits: grid.bits, into: room.place(in: firstOutput), count: grain.count)
        case .zero, .mask, .sparse: decoded.update(repeating: 0, count: grain.count)
        }
    }

    /// The same, but leaves the codes out.
    func writePoints(_ x: UnsafePointer<Float>, of grain: Grain, room: StretchRoom, decoded: UnsafeMutablePointer<Float>) {
        coder.code(x, of: grain, into: target(in: room, grain), decoded: decoded)
    }

    /// Codes are packed from a room of their own; steps of runs go to where they belong.
    private func target(in room: StretchRoom, _ grain: Grain) -> FormCoder.Target {
        let own = grain.workspace { CodeRoom() }.target
        guard rates.count == 2, rates[1] != nil else { return own }
        return FormCoder.Target(codes: own.codes, steps: room.place(in: firstOutput + 1))
    }

    /// Steps and zeros that are known before the walk.
    func writeKnown(of tensor: TensorPasses) throws { try coder.grid?.writeKnown(to: firstOutput + 1, of: tensor) }
}
