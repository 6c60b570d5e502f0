import Dispatch
import Synchronization

extension Array where Element: Sendable {
    /// `transform` of each element, on all processors, for work that takes long for each: a file to read, a model to open.
    ///
    /// - Returns: the results in the order of the elements.
    package func concurrentMap<Result: Sendable>(_ transform: @Sendable (Element) -> Result) -> [Result] {
        let results = Mutex<[Result?]>([Result?](repeating: nil, count: count))
        DispatchQueue.concurrentPerform(iterations: count) { index in
            let result = transform(self[index])
            results.withLock { $0[index] = result }
        }
        return results.withLock { $0.compactMap(\.self) }
    }
}
