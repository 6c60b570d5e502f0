/// Frames that wait for the connection: control frames go before data, so that a heartbeat never stands behind a block.
package struct OutboundQueue: Sendable {
    private var control: [Frame] = []
    private var data: [Frame] = []

    package init() {}

    package mutating func add(_ frame: Frame) {
        if frame.header.type == .control {
            control.append(frame)
        } else {
            data.append(frame)
        }
    }

    package mutating func next() -> Frame? {
        if !control.isEmpty { return control.removeFirst() }
        return data.isEmpty ? nil : data.removeFirst()
    }

    package var isEmpty: Bool { control.isEmpty && data.isEmpty }
}
