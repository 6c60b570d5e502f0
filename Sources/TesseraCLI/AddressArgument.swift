import ArgumentParser
import Core
import Protocol

/// A host and a port as an option gives them. Every text is taken at first: `check` says what is wrong with one, where
/// ArgumentParser would only say that something is.
struct AddressArgument: ExpressibleByArgument, Hashable, CustomStringConvertible {
    let description: String

    var defaultValueDescription: String { description }

    init(argument: String) { description = argument }

    init(_ address: HostPort) { description = "\(address)" }

    /// Port 0 lets the system choose the port of a listener, and is none to connect to.
    ///
    /// - Throws: `usage`, with what is wrong and how to write it.
    func address(ports: ClosedRange<Int> = 1...65535) throws(TesseraError) -> HostPort {
        try HostPort(parsing: description, ports: ports)
    }

    /// - Parameter option: that has the value.
    /// - Throws: `ValidationError`.
    func check(_ option: String, ports: ClosedRange<Int> = 1...65535) throws {
        do throws(TesseraError) {
            _ = try address(ports: ports)
        } catch {
            throw ValidationError("\(option) is '\(description)': \(error.problem).")
        }
    }
}
