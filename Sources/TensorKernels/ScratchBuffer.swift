/// Scratch memory that grows with the largest request.
package final class ScratchBuffer<Element: BitwiseCopyable> {
    private var start = UnsafeMutablePointer<Element>.allocate(capacity: 1)
    private var capacity = 1

    package init() {}

    deinit { start.deallocate() }

    /// Memory for `count` elements. Growing loses the former contents.
    package func pointer(_ count: Int) -> UnsafeMutablePointer<Element> {
        if capacity < count {
            start.deallocate()
            start = .allocate(capacity: count)
            capacity = count
        }
        return start
    }
}
