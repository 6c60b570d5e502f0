/// A float32 buffer, and scratch for the same number of elements of any type, for passes that a source makes itself.
enum Scratch {
    private static let widestElement = 8

    static func with(
        elements: Int, _ body: (UnsafeMutablePointer<Float>, UnsafeMutableRawBufferPointer) throws -> Void
    ) rethrows {
        let floats = UnsafeMutablePointer<Float>.allocate(capacity: elements)
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: elements * widestElement, alignment: 64)
        defer {
            floats.deallocate()
            scratch.deallocate()
        }
        try body(floats, scratch)
    }
}
