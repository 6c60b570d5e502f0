package import Core
import Synchronization
package import TensorKernels

/// A model's matrix with its rows in the order of the output vocabulary, as float32.
///
/// ```
/// stored row   M_j[r]
/// mean         (M_a[r] + M_b[s] + …) / n       summed in float64 in that order, rounded once to float32
/// zero         0
/// padding      Σ_i A[i] / n  over the n rows i of the aligned matrix A that are not padding, ascending, in float64; rounded once
/// ```
/// A matrix has shape `[vocabulary, …]`; a bias `[vocabulary]` has rows of one element.
package final class AlignedRows: ElementSource {
    /// Whatever types the matrices have.
    package var dtype: DType { .f32 }
    package let count: Int

    private let matrices: [any ElementSource]
    private let map: RowMap
    /// Elements of a row.
    private let rowLength: Int
    /// Computed by the first thread that needs it; the others wait.
    private let paddingRow = Mutex<[Float]?>(nil)

    /// Elements of a mean that are summed at a time, on the stack.
    private static let meanSegment = 512

    /// - Parameters:
    ///   - matrices: in the order in which `map` numbers them.
    ///   - rowLength: elements of a row, the same in all matrices.
    /// - Throws: `badData` unless all matrices have rows of this length, and all rows that the map names.
    package init(matrices: [any ElementSource], rowLength: Int, map: RowMap) throws(TesseraError) {
        guard rowLength > 0, matrices.allSatisfy({ $0.count % rowLength == 0 && $0.dtype.isArithmetic }) else {
            throw TesseraError(.badData, "the matrices to be aligned do not have rows of \(rowLength) numbers")
        }
        guard let needed = map.rowsNeeded(sources: matrices.count) else {
            throw TesseraError(.badData, "the row map names more than \(matrices.count) matrices")
        }
        if let short = matrices.indices.first(where: { matrices[$0].count / rowLength < needed[$0] }) {
            throw TesseraError(
                .badData,
                "the row map names row \(needed[short] - 1) of matrix \(short), which has "
                    + "\(matrices[short].count / rowLength) rows"
            )
        }
        let (count, overflow) = map.rowCount.multipliedReportingOverflow(by: rowLength)
        guard !overflow else { throw TesseraError(.badData, "the aligned matrix is too large") }
        self.matrices = matrices
        self.rowLength = rowLength
        self.map = map
        self.count = count
    }

    // MARK: Reading

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard range.lowerBound >= 0, range.upperBound <= count else {
            throw TesseraError(.internal, "elements \(range) of an aligned matrix of \(count)")
        }
        try forEachRun(in: range) { origin, part, first in
            let place = target + (part.lowerBound - range.lowerBound)
            switch origin {
            case .stored(let row):
                let source = shifted(part, by: row.row * rowLength - first)
                try matrices[row.source].load(source, into: place, scratch: scratch, kernels: kernels)
            case .mean(let rows): try loadMean(of: rows, part, first: first, into: place, scratch: scratch, kernels: kernels)
            case .zero: place.update(repeating: 0, count: part.count)
            case .padding:
                let row = try padding(kernels)
                for offset in 0..<part.count { place[offset] = row[(part.lowerBound + offset) % rowLength] }
            }
        }
    }

    /// Calls `body` for each run that overlaps `range`, with the elements in common and the run's first element.
    private func forEachRun(
        in range: Range<Int>, _ body: (RowMap.Origin, _ part: Range<Int>, _ first: Int) throws -> Void
    ) rethrows {
        guard !range.isEmpty else { return }
        var index = map.runIndex(ofRow: range.lowerBound / rowLength), next = range.lowerBound
        while next < range.upperBound {
            let run = map.runs[index], first = run.rows.lowerBound * rowLength
            let end = min(range.upperBound, first + run.rows.count * rowLength)
            try body(run.origin, next..<end, first)
            next = end
            index += 1
        }
    }

    package func prefetch(_ range: Range<Int>) {
        forEachStored(in: range) { matrix, elements in matrix.prefetch(elements) }
    }

    package func release(_ range: Range<Int>) {
        forEachStored(in: range) { matrix, elements in matrix.release(elements) }
    }

    /// Calls `body` with the stored elements that `range` is read from, except for padding.
    private func forEachStored(in range: Range<Int>, _ body: (any ElementSource, Range<Int>) -> Void) {
        forEachRun(in: range) { origin, part, first in
            let rows: [RowMap.SourceRow] =
                switch origin {
                case .stored(let row): [row]
                case .mean(let rows): rows
                case .zero, .padding: []
                }
            for row in rows { body(matrices[row.source], shifted(part, by: row.row * rowLength - first)) }
        }
    }

    /// The elements as little-endian float32, not the stored bytes.
    ///
    /// - Throws: `internal` for a range that does not consist of whole elements.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        let width = MemoryLayout<Float>.stride
        guard byteRange.lowerBound % width == 0, byteRange.upperBound % width == 0 else {
            throw TesseraError(.internal, "bytes \(byteRange) cut an element of an aligned matrix")
        }
        let segment = FixedTree.tileElements
        try Scratch.with(elements: segment) { floats, scratch in
            for start in stride(from: byteRange.lowerBound / width, to: byteRange.upperBound / width, by: segment) {
                let part = start..<min(byteRange.upperBound / width, start + segment)
                try load(part, into: floats, scratch: scratch, kernels: .best)
                (target + (start * width - byteRange.lowerBound)).copyMemory(from: floats, byteCount: part.count * width)
            }
        }
    }

    private func shifted(_ range: Range<Int>, by distance: Int) -> Range<Int> {
        range.lowerBound + distance..<range.upperBound + distance
    }

    // MARK: Means

    /// - Parameter first: the run's first element in the aligned matrix.
    private func loadMean(
        of rows: [RowMap.SourceRow], _ part: Range<Int>, first: Int, into target: UnsafeMutablePointer<Float>,
        scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try withUnsafeTemporaryAllocation(of: Double.self, capacity: Self.meanSegment) { sums in
            for start in stride(from: part.lowerBound, to: part.upperBound, by: Self.meanSegment) {
                let segment = start..<min(part.upperBound, start + Self.meanSegment)
                let place = target + (start - part.lowerBound)
                sums.update(repeating: 0)
                for row in rows {
                    let source = shifted(segment, by: row.row * rowLength - first)
                    try matrices[row.source].load(source, into: place, scratch: scratch, kernels: kernels)
                    for offset in 0..<segment.count { sums[offset] += Double(place[offset]) }
                }
                for offset in 0..<segment.count { place[offset] = Float(sums[offset] / Double(rows.count)) }
            }
        }
    }

    private func padding(_ kernels: Kernels) throws -> [Float] {
        try paddingRow.withLock { row in
            if let row { return row }
            let computed = try meanRow(kernels)
            row = computed
            return computed
        }
    }

    /// The mean of all rows that are not padding; zeros if there are none.
    private func meanRow(_ kernels: Kernels) throws -> [Float] {
        var sums = [Double](repeating: 0, count: rowLength)
        var rows = 0
        let rowsAtOnce = max(1, FixedTree.tileElements / rowLength)
        try Scratch.with(elements: rowsAtOnce * rowLength) { floats, scratch in
            for run in map.runs where run.origin != .padding {
                rows += run.rows.count
                for start in stride(from: run.rows.lowerBound, to: run.rows.upperBound, by: rowsAtOnce) {
                    let end = min(run.rows.upperBound, start + rowsAtOnce)
                    let elements = start * rowLength..<end * rowLength
                    try load(elements, into: floats, scratch: scratch, kernels: kernels)
                    release(elements)
                    add(floats, rows: end - start, to: &sums)
                }
            }
        }
        return sums.map { rows == 0 ? 0 : Float($0 / Double(rows)) }
    }

    private func add(_ floats: UnsafeMutablePointer<Float>, rows: Int, to sums: inout [Double]) {
        sums.withUnsafeMutableBufferPointer { sums in
            for row in 0..<rows {
                let place = floats + row * rowLength
                for column in 0..<rowLength { sums[column] += Double(place[column]) }
            }
        }
    }
}
