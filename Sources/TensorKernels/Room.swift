/// Room that grows as it is asked for.
package final class Room<Element: BitwiseCopyable> {
    private var start = UnsafeMutablePointer<Element>.allocate(capacity: 1)
    private var capacity = 1

    package init() {}

    deinit { start.deallocate() }

    /// Room for `count` elements; what was in it is lost when it grows.
    package func pointer(_ count: Int) -> UnsafeMutablePointer<Element> {
        if capacity < count {
            start.deallocate()
            start = .allocate(capacity: count)
            capacity = count
        }
        return start
    }
}
