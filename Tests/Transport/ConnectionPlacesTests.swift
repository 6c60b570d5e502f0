import Core
import NIOCore
import NIOPosix
import Protocol
import TestSupport
import Testing

@testable import Transport

/// Who loses a place when more connections come than a port has places for.
@Suite(.timeLimit(.minutes(15))) struct ConnectionPlacesTests {
    private func places(total: Int = 8, perAddress: Int = 4, strangers: Int = 4) -> ConnectionPlaces {
        ConnectionPlaces(.init(total: total, perAddress: perAddress, strangers: strangers))
    }

    /// Two addresses once used up a port on which nobody else then got in.
    @Test func aFloodPushesOutItself() {
        var places = places(total: 100, perAddress: 50, strangers: 20)
        #expect(places.arrive(0, from: "honest") == .enters)
        for number in 1...19 { #expect(places.arrive(number, from: number % 2 == 0 ? "a" : "b") == .enters) }
        var closed: Set<Int> = []
        for number in 100..<10_000 {
            guard case .replaces(let other) = places.arrive(number, from: number % 2 == 0 ? "a" : "b") else {
                Issue.record("\(number) took a place that there is not")
                return
            }
            closed.insert(other)
        }
        // The honest peer was there before all of them.
        #expect(!closed.contains(0) && closed.count == 9900)
        #expect(places.arrive(10_000, from: "late") != .refused)
        for number in 10_001..<10_020 { #expect(places.arrive(number, from: "a") != .replaces(10_000)) }
    }

    @Test func theOldestStrangerOfAnAddressGoes() {
        var places = places(strangers: 3)
        for number in 1...3 { #expect(places.arrive(number, from: "a") == .enters) }
        #expect(places.arrive(4, from: "b") == .replaces(1))
        // Of addresses with as many strangers, the oldest of all.
        places.leave(3)
        #expect(places.arrive(5, from: "c") == .enters)
        #expect(places.arrive(6, from: "d") == .replaces(2))
    }

    @Test func whoeverIsAdmittedStays() {
        var places = places()
        for number in 1...4 {
            #expect(places.arrive(number, from: "a") == .enters)
            places.keep(number)
        }
        #expect(places.arrive(5, from: "a") == .refused)
        for number in 6...9 { #expect(places.arrive(number, from: "b") == .enters) }
        for number in 10...30 { #expect(places.arrive(number, from: "c\(number)") == .replaces(number - 4)) }
        // The last places are those of strangers, as long as there are some.
        for number in 27...30 { places.keep(number) }
        #expect(places.arrive(31, from: "d") == .refused)
        places.leave(2)
        #expect(places.arrive(32, from: "d") == .enters)
    }

    /// At the address's own limit, its own stranger goes, whoever has more.
    @Test func anAddressHasItsShare() {
        var places = places(total: 100, perAddress: 2, strangers: 50)
        for number in 1...2 { #expect(places.arrive(number, from: "a") == .enters) }
        #expect(places.arrive(3, from: "a") == .replaces(1))
        places.keep(2)
        #expect(places.arrive(4, from: "a") == .replaces(3))
        places.keep(4)
        #expect(places.arrive(5, from: "a") == .refused)
        #expect(places.arrive(6, from: "b") == .enters)
    }

    /// After its answer, a connection to the status port may go again, as the youngest.
    @Test func aPlaceIsOfferedAgain() {
        var places = places(perAddress: 2)
        for number in 1...2 { #expect(places.arrive(number, from: "a") == .enters) }
        places.keep(1)
        places.offer(1)
        #expect(places.arrive(3, from: "a") == .replaces(2))
        #expect(places.arrive(4, from: "a") == .replaces(1))
        // A connection that has ended has no place to keep or to offer.
        places.keep(1)
        places.offer(1)
        places.leave(1)
        #expect(places.arrive(5, from: "a") == .replaces(3))
    }

    @Test func aNetworkOfIPv6IsOneAddress() {
        #expect(Admission.group("2001:db8:1:2::1") == Admission.group("2001:db8:1:2:ffff::9"))
        #expect(Admission.group("2001:db8:1:2::1") != Admission.group("2001:db8:1:3::1"))
        #expect(Admission.group("::1") == "::1" && Admission.group("10.0.0.1") == "10.0.0.1")
        #expect(Admission.group("::ffff:10.0.0.1") == "10.0.0.1" && Admission.group("10.0.0.1") != Admission.group("10.0.0.2"))
    }

    /// A port whose strangers have used up their places lets the next peer in, and closes none that is admitted.
    @Test func aNewPeerGetsInBesideSilentOnes() async throws {
        let listener = try await Transport.listen(
            on: HostPort(host: "127.0.0.1", port: 0), limits: .init(total: 20, perAddress: 10, strangers: 5))
        let server = Task {
            try await listener.serve { connection, _ in
                try? await connection.withFrames { frames in
                    for try await frame in frames {
                        connection.allow(.messages)
                        connection.send(frame)
                    }
                }
            }
        }
        func connect() async throws -> Connection { try await Transport.connect(to: listener.address, limits: .coordinator) }
        let silent = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        let admitted = try await connect()
        try await admitted.withFrames { frames in
            var frames = frames.makeAsyncIterator()
            try admitted.send(.drain)
            #expect(try await frames.next() != nil)
            var channels: [any Channel] = []
            for _ in 0..<30 {
                channels.append(try await silent.connect(host: "127.0.0.1", port: listener.address.port).get())
            }
            let late = try await connect()
            try await late.withFrames { frames in
                var frames = frames.makeAsyncIterator()
                try late.send(.drain)
                #expect(try await frames.next() != nil)
            }
            // The oldest of the silent ones was closed for the others.
            try await channels.first?.closeFuture.get()
            try admitted.send(.drain)
            #expect(try await frames.next() != nil)
            for channel in channels { channel.close(promise: nil) }
        }
        listener.close()
        try await server.value
    }
}
