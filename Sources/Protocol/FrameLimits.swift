/// The frame types that a receiver accepts from its peer, and the largest bodies.
///
/// Before admission, a peer may send one small message and nothing else.
package struct FrameLimits: Sendable, Hashable {
    /// Bytes of a message.
    let messageBytes: Int
    /// The accepted frame types that carry data.
    let data: Set<FrameType>
    /// Bytes of unfinished frames of all peers with these limits together.
    package private(set) var unfinishedBytes = Int.max

    /// For a coordinator, from a peer that it has not admitted.
    package static let stranger = FrameLimits(
        messageBytes: Limits.greetingBodyBytes, data: [], unfinishedBytes: Limits.unfinishedGreetingBytes)
    /// For a coordinator, from a worker.
    package static let worker = FrameLimits(
        messageBytes: Limits.controlBodyBytes, data: [.block], unfinishedBytes: Limits.unfinishedBlockBytes)
    /// For a coordinator, from a client; and for a client, from its coordinator.
    package static let messages = FrameLimits(
        messageBytes: Limits.controlBodyBytes, data: [], unfinishedBytes: Limits.unfinishedRequestBytes)
    /// For a worker, from its coordinator.
    package static let coordinator = FrameLimits(messageBytes: Limits.controlBodyBytes, data: [.fetched])
    /// Everything that the protocol allows.
    package static let all = FrameLimits(messageBytes: Limits.controlBodyBytes, data: [.block, .fetched])

    /// - Throws: `tooLarge` or `unexpectedType`.
    func check(_ type: FrameType, bodyLength: Int) throws(FrameError) {
        switch type {
        case .control, .ordered:
            guard bodyLength <= messageBytes else { throw FrameError.tooLarge(bodyLength, limit: messageBytes) }
        case .block, .fetched:
            guard data.contains(type) else { throw FrameError.unexpectedType(type) }
            guard bodyLength <= Limits.dataBodyBytes else {
                throw FrameError.tooLarge(bodyLength, limit: Limits.dataBodyBytes)
            }
        }
    }
}
