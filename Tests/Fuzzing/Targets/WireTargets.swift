import Core
import NIOCore
import Protocol
import Synchronization
import TensorKernels
import Work

extension FuzzTarget {
    private static let frameTotal = Atomic(0)
    private static let messageTotal = Atomic(0)

    /// Frames that have arrived whole in this process, and messages among them that have been understood.
    package static var frameCount: Int { frameTotal.load(ordering: .relaxed) }
    package static var messageCount: Int { messageTotal.load(ordering: .relaxed) }

    /// Bytes from a connection, at both ends.
    ///
    /// The first byte chooses: the bytes as they are; or the sections as the bodies of frames with right checksums, each after a
    /// byte for its type; or these frames with one bit flipped.
    static let frames = FuzzTarget("frames") { input in
        guard let mode = input.first else { return }
        var stream = ByteBuffer(bytes: input.dropFirst())
        if mode & 1 == 1 {
            stream.clear()
            var encoder = FrameEncoder()
            for section in sections(Array(input.dropFirst()), 64) where !section.isEmpty {
                let type = FrameType.allCases[Int(section[0]) % FrameType.allCases.count]
                let frame = Frame(type, body: ByteBuffer(bytes: section.dropFirst()))
                stream.writeImmutableBuffer(encoder.encodeHeader(of: frame))
                stream.writeImmutableBuffer(frame.body)
            }
            if mode & 2 == 2, stream.readableBytes > 0 {
                let bit = input.count &* 2_654_435_761 % (stream.readableBytes * 8)
                let byte: UInt8 = stream.getInteger(at: bit / 8) ?? 0
                stream.setInteger(byte ^ 1 << UInt8(bit % 8), at: bit / 8)
            }
        }
        for end in [Peer.coordinator(), .worker()] {
            var end = end, rest = stream
            // In pieces, as a network delivers them.
            let length = max(1, Int(mode >> 2) * 16)
            while var piece = rest.readSlice(length: min(length, rest.readableBytes)), piece.readableBytes > 0 {
                while let frame = try end.decoder.next(in: &piece) {
                    frameTotal.wrappingAdd(1, ordering: .relaxed)
                    try end.take(frame)
                }
            }
            try end.decoder.finish()
        }
    }

    /// JSON messages, a section each, at both ends: most get further than the bytes of `frames`.
    static let messages = FuzzTarget("messages") { input in
        var ends = [Peer.coordinator(), .worker()]
        for section in sections(input, 64) {
            frameTotal.wrappingAdd(1, ordering: .relaxed)
            let frame = Frame(.control, body: ByteBuffer(bytes: section))
            for index in ends.indices { try? ends[index].take(frame) }
        }
    }

    /// One end of a connection, and what its driver does.
    private struct Peer {
        private enum Session {
            case coordinator(CoordinatorSession)
            case worker(WorkerSession)
        }

        var decoder: FrameDecoder
        private var session: Session
        private var now = Duration.zero
        private var bytes = 0

        static func coordinator() -> Peer {
            Peer(
                decoder: FrameDecoder(limits: .stranger),
                session: .coordinator(CoordinatorSession(number: 1, build: "fuzz", at: .zero)))
        }

        static func worker() -> Peer {
            Peer(decoder: FrameDecoder(limits: .coordinator), session: .worker(WorkerSession(at: .zero)))
        }

        private init(decoder: FrameDecoder, session: Session) {
            self.decoder = decoder
            self.session = session
        }

        mutating func take(_ frame: Frame) throws {
            now += .milliseconds(700)
            bytes += frame.byteCount
            switch frame.header.type {
            case .control, .ordered:
                let message = try Message(frame)
                messageTotal.wrappingAdd(1, ordering: .relaxed)
                try received(message)
            case .block:
                let block = try BlockFrame(frame)
                guard case .coordinator(var session) = session else { return }
                _ = session.receivedBlock(byteCount: frame.byteCount, of: block.attempt, at: now)
                try block.contents.withUnpacked { precondition($0.count == block.contents.length) }
                _ = session.storedBlock(byteCount: frame.byteCount, of: block.attempt)
                self.session = .coordinator(session)
            case .fetched: _ = try FetchedFrame(frame)
            }
        }

        private mutating func received(_ message: Message) throws {
            // What is understood can be said again, and means the same.
            if (try? message.validate()) != nil {
                let again = try Message(try message.frame())
                precondition(again == message, "\(message) became \(again)")
            }
            switch session {
            case .coordinator(var session):
                var actions = session.received(message, at: now)
                actions += session.tick(at: now, bytesReceived: bytes)
                for action in actions {
                    switch action {
                    case .send(let answer): try send(answer)
                    case .allow(let limits): decoder.limits = limits
                    case .fetch: _ = session.answeredFetch()
                    default: continue
                    }
                }
                self.session = .coordinator(session)
            case .worker(var session):
                var actions = session.received(message, at: now)
                if case .lease(let lease) = message, now > .seconds(20) { actions += session.ended(lease.attempt) }
                actions += session.tick(at: now, bytesReceived: bytes, progress: [])
                for action in actions {
                    switch action {
                    case .send(let answer): try send(answer)
                    case .start(let lease): try? prepare(lease)
                    default: continue
                    }
                }
                self.session = .worker(session)
            }
        }

        /// What a worker does with a shard before it computes.
        private func prepare(_ lease: Lease) throws {
            let files = try ["a", "b"].map { name throws(TesseraError) in
                try Folder.models.open("/models/\(name)/model.safetensors")
            }
            for tensor in lease.work.tensors {
                _ = try tensor.cost()
                _ = try tensor.openSources(in: files, kernels: .best)
            }
        }

        /// Every answer fits a frame.
        private func send(_ answer: Message) throws { _ = try answer.frame() }
    }
}
