internal import CTensorKernels

/// Groups the bytes of elements by their position in the element, so that exponents, which repeat, are next to each other.
package enum BytePlanes {
    /// All first bytes, then all second bytes, and so on. Bytes beyond the last whole element are appended as they are.
    package static func split(_ source: UnsafeRawBufferPointer, elementWidth: Int, into target: UnsafeMutableRawBufferPointer) {
        rearrange(source, elementWidth: elementWidth, into: target, tk_split_planes)
    }

    /// The inverse of `split`.
    package static func join(_ source: UnsafeRawBufferPointer, elementWidth: Int, into target: UnsafeMutableRawBufferPointer) {
        rearrange(source, elementWidth: elementWidth, into: target, tk_join_planes)
    }

    private static func rearrange(
        _ source: UnsafeRawBufferPointer, elementWidth: Int, into target: UnsafeMutableRawBufferPointer,
        _ kernel: (UnsafePointer<UInt8>, UnsafeMutablePointer<UInt8>, Int, Int) -> Void
    ) {
        assert(target.count >= source.count && elementWidth > 0)
        let from = source.bindMemory(to: UInt8.self), to = target.bindMemory(to: UInt8.self)
        guard let first = from.baseAddress, let buffer = to.baseAddress else { return }
        let elements = source.count / elementWidth, whole = elements * elementWidth
        kernel(first, buffer, elements, elementWidth)
        (buffer + whole).update(from: first + whole, count: source.count - whole)
    }
}
