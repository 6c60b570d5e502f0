import Core
import Foundation
import Operators
import Protocol
import TestSupport
import Testing
import Work
import Worker

@testable import Worker

@Suite struct LocalOutputsTests {
    private let root: TemporaryDirectory
    private let partial: String
    /// The coordinator's page cache is this process's own.
    private let cache: String?
    private static let job = JobID(high: 7, low: 9)

    init() throws {
        root = try TemporaryDirectory()
        partial = "\(root.path)/out.partial-\(Self.job)"
        try FileManager.default.createDirectory(atPath: partial, withIntermediateDirectories: false)
        _ = try OutputFile(creating: "model.safetensors", in: Directory(partial), size: 100, reserve: true)
        cache = OutputPlace.cache(machine: kernelIdentity(), device: try Directory(partial).device)
    }

    private func place(
        _ directory: String? = nil, relative: String? = nil, machine: String?? = nil, part: String = "model.safetensors",
        size: Int = 100
    ) -> OutputPlace {
        OutputPlace(
            directory: directory ?? partial, relative: relative, machine: machine ?? cache,
            parts: [.init(number: 4, name: part, size: size)])
    }

    private let lease = Lease(
        attempt: Attempt(job: job, shard: 0, epoch: 1, incarnation: 1), milliseconds: 1000,
        work: ShardWork(
            label: "s", files: [],
            tensors: [
                TensorWork(
                    name: "t", shape: [16],
                    operation: .merge(
                        MergeOperation(
                            method: "linear", values: ParameterValues(perInput: []), base: nil, codec: .rounding(to: .bf16))),
                    sources: [],
                    outputs: [OutputTensor(name: "t", dtype: .bf16, byteCount: 32, part: 4, offset: 60, blockSize: 4 << 20)])
            ]))

    private func store(_ output: DirectOutput, count: Int, offset: Int) throws {
        try [UInt8](repeating: 5, count: count).withUnsafeBytes { try output.store($0, tensor: 0, offset: offset) }
    }

    @Test func blocksLandWhereTheyBelong() throws {
        let output = try #require(try LocalOutputs().open(place(), of: lease))
        try store(output, count: 16, offset: 16)
        try output.finish()
        let bytes = try LocalFiles().read("\(partial)/model.safetensors", maxBytes: 1000)
        #expect(bytes == Array(repeating: 0, count: 76) + Array(repeating: 5, count: 16) + Array(repeating: 0, count: 8))
        // Nothing outside the tensor, were it inside the file.
        #expect(throws: TesseraError.self) { try store(output, count: 17, offset: 16) }
    }

    @Test func nothingButTheJobsOutputIsWrittenTo() throws {
        let other = "\(root.path)/out.partial-\(JobID(high: 1, low: 1))"
        try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: false)
        _ = try OutputFile(creating: "model.safetensors", in: Directory(other), size: 100, reserve: false)
        _ = try OutputFile(creating: "precious", in: Directory(root.path), size: 100, reserve: false)
        try FileManager.default.createSymbolicLink(atPath: "\(partial)/link", withDestinationPath: "\(root.path)/precious")
        for place in [
            place(other), place(root.path), place(part: "../precious"), place(part: "link"), place(size: 99),
            place(part: "absent"),
            place("\(root.path)/../\(partial.dropFirst())"), place("/nowhere/out.partial-\(Self.job)"),
        ] {
            #expect(try LocalOutputs().open(place, of: lease) == nil, "\(place)")
            let error = #expect(throws: TesseraError.self) { try LocalOutputs(mode: .direct).open(place, of: lease) }
            #expect(error?.code == .cannotCreate)
        }
    }

    @Test func anOutputRootBoundsWhatIsWrittenTo() throws {
        let name = "out.partial-\(Self.job)"
        #expect(try LocalOutputs(root: root.path).open(place(), of: lease) != nil)
        #expect(try LocalOutputs(root: "\(root.path)/sub").open(place(), of: lease) == nil)
        // Where the coordinator has a root of its own, the path below it counts.
        #expect(try LocalOutputs(root: root.path).open(place("/mnt/x/\(name)", relative: name), of: lease) != nil)
        #expect(try LocalOutputs(root: root.path).open(place(relative: "../x/\(name)"), of: lease) == nil)
        #expect(try LocalOutputs(root: "/nowhere").open(place(relative: name), of: lease) == nil)
    }

    /// A worker with an output root follows no link below it, whoever put it there.
    @Test func noLinkLeadsOutOfTheOutputRoot() throws {
        let outer = try TemporaryDirectory(), name = "out.partial-\(Self.job)"
        try FileManager.default.createSymbolicLink(atPath: "\(outer.path)/folder", withDestinationPath: root.path)
        try FileManager.default.createSymbolicLink(atPath: "\(outer.path)/\(name)", withDestinationPath: partial)
        for relative in ["folder/\(name)", name] {
            let outputs = LocalOutputs(mode: .direct, root: outer.path)
            let error = #expect(throws: TesseraError.self) { try outputs.open(place(relative: relative), of: lease) }
            #expect(error?.problem.contains("is a link or leads out") == true, "\(relative)")
        }
        // Without a root, the output's own directory must still be none.
        #expect(try LocalOutputs().open(place("\(outer.path)/\(name)"), of: lease) == nil)
        #expect(try LocalOutputs().open(place("\(outer.path)/folder/\(name)"), of: lease) != nil)
    }

    @Test func betweenHostsAFileSystemHasToBeShared() throws {
        // A local file system cannot be that of another host's coordinator, whatever it looks like.
        #expect(try LocalOutputs().open(place(machine: "another"), of: lease) == nil)
        #expect(try LocalOutputs().open(place(machine: .some(nil)), of: lease) == nil)
        // Nor is one of this kernel that is mounted a second time, with a page cache of its own.
        let other = OutputPlace.cache(machine: kernelIdentity(), device: try Directory("/proc").device)
        #expect(try LocalOutputs().open(place(machine: other), of: lease) == nil)
        #expect(try LocalOutputs().open(place(), of: lease) != nil)
        let forced = try #require(try LocalOutputs(mode: .direct).open(place(machine: "another"), of: lease))
        try store(forced, count: 32, offset: 0)
        try forced.finish()
        #expect(try LocalOutputs(mode: .relayed).open(place(), of: lease) == nil)
    }
}
