import Core
import Testing

/// Sizes that a file names are bounded before they are computed with.
@Suite struct SizeLimitTests {
    @Test(arguments: [
        ([], DType.f32, 4), ([0], .f32, 0), ([0, 1 << 40], .f32, 0), ([3, 5], .bf16, 30), ([3, 2], .f4, 3),
        ([4, 5], .f6E2M3, 15),
        ([1 << 41], .i8, 1 << 41), ([1 << 20, 1 << 21], .f64, 1 << 44),
    ])
    func bytesOfAShape(shape: [Int], dtype: DType, byteCount: Int) throws {
        #expect(try dtype.byteCount(ofShape: shape) == byteCount)
        #expect(byteCount <= SizeLimit.tensor)
    }

    @Test(arguments: [
        [-1], [4, -4], [(1 << 41) + 1], [1 << 41, 2], [1 << 62], [.max, .max], [0, .max], [.max, 0, .max], [1 << 32, 1 << 32],
    ])
    func shapesThatNoTensorHas(shape: [Int]) {
        let error = #expect(throws: TesseraError.self) { try DType.i8.byteCount(ofShape: shape) }
        #expect(error?.code == .badData && error?.problem == "has the shape \(shape), which is too large")
    }

    @Test func elementsFillWholeBytes() {
        let error = #expect(throws: TesseraError.self) { try DType.f4.byteCount(ofShape: [3]) }
        #expect(error?.code == .badData && error?.problem.contains("not a whole number of bytes") == true)
    }

    /// Sums of what keeps to the limits do not overflow: a million files, each with eight times its bytes in bits.
    @Test func limitsLeaveRoomForArithmetic() {
        #expect(SizeLimit.tensor < SizeLimit.file && SizeLimit.file < SizeLimit.total)
        #expect(!SizeLimit.total.multipliedReportingOverflow(by: 64).overflow)
        #expect(!Shape.elementLimit.multipliedReportingOverflow(by: 64).overflow)
    }

    @Test func elementsOfAShape() {
        #expect(Shape.count([]) == 1 && Shape.count([3, 5]) == 15 && Shape.count([3, 0]) == 0)
        // Refused where it came in; were it not, the next comparison would fail.
        for shape in [[-1], [1 << 62, 4], [0, .max, .max]] {
            #expect(Shape.elementCount(shape) == nil && Shape.count(shape) == Shape.elementLimit)
        }
    }
}
