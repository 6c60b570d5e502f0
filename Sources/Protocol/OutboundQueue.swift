/// Frames waiting to be sent. Control frames overtake data, so that a heartbeat never waits behind a block.
package struct OutboundQueue<Entry: Sendable>: Sendable {
    private var control: [Entry] = []
    private var data: [Entry] = []

    package init() {}

    package mutating func add(_ entry: Entry, as type: FrameType) {
        if type == .control {
            control.append(entry)
        } else {
            data.append(entry)
        }
    }

    package mutating func next() -> Entry? {
        if !control.isEmpty { return control.removeFirst() }
        return data.isEmpty ? nil : data.removeFirst()
    }

    package var isEmpty: Bool { control.isEmpty && data.isEmpty }
}
