import Core

/// Waits until `condition` holds, for a minute at most.
///
/// - Throws: `temporary`, with `what` did not happen.
package func eventually(_ what: @autoclosure () -> String, _ condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    var times = 0
    // Also on a machine so busy that a minute passes in a few steps.
    while times < 50 || ContinuousClock.now < deadline {
        if try await condition() { return }
        try await Task.sleep(for: .milliseconds(10))
        times += 1
    }
    throw TesseraError(.temporary, "this did not happen in time: \(what())")
}
