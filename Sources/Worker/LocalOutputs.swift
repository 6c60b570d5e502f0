import Core
import Protocol
import Synchronization
import Work

/// Finds unfinished outputs that this host can write to, so that blocks need not go through the coordinator.
package final class LocalOutputs: Sendable {
    package enum Mode: String, Sendable, CaseIterable {
        /// Write directly where that is possible and safe.
        case auto
        /// Write directly or fail.
        case direct
        /// Send through the coordinator.
        case relayed = "return"
    }

    private let mode: Mode
    private let root: String?
    private let machine = kernelIdentity()
    private let buffers = BlockBuffers()
    /// The last jobs whose output could not be written to.
    private let avoided = Mutex<[JobID]>([])

    /// - Parameter root: this host's path of the coordinator's output root, which must contain every output; `nil` allows any
    ///   directory.
    package init(mode: Mode = .auto, root: String? = nil) {
        self.mode = mode
        self.root = root
    }

    /// Opens the parts that the shard writes to.
    ///
    /// - Returns: `nil` if blocks must be sent to the coordinator.
    /// - Throws: `cannotCreate` if blocks must be written directly and this host cannot see the output.
    func open(_ place: OutputPlace, of lease: Lease) throws(TesseraError) -> DirectOutput? {
        let job = lease.attempt.job
        guard mode != .relayed, mode == .direct || !avoided.withLock({ $0.contains(job) }) else { return nil }
        do throws(TesseraError) {
            let directory = try directory(of: place, job: lease.attempt.job)
            let cache = OutputPlace.cache(machine: machine, device: directory.device)
            let sharesCache = cache != nil && cache == place.machine
            var files: [Int: OutputFile] = [:]
            for part in place.parts {
                guard FilePath.isPlain(part.name) else { throw Self.suspicious(part.name) }
                let file = try OutputFile(existing: part.name, in: directory, size: part.size)
                // On other file systems, neighbouring bytes that another host writes could be lost.
                guard mode == .direct || sharesCache || file.isShareable else { return nil }
                files[part.number] = file
            }
            return DirectOutput(files: files, outputs: lease.work.outputs, buffers: buffers, syncs: !sharesCache)
        } catch {
            guard mode == .direct else { return nil }
            throw TesseraError(
                .cannotCreate, "this worker may only write to the output itself, and cannot: \(error.problem)",
                file: error.file ?? place.directory,
                advice:
                    "mount the coordinator's output root and name it with --output-root, or start the worker with --blocks auto")
        }
    }

    /// This worker could not write to the job's output. If the fault is its own, such as a mount that became read-only, the
    /// coordinator may do better: from now on the blocks are sent.
    func avoid(_ job: JobID) {
        avoided.withLock { avoided in
            guard !avoided.contains(job) else { return }
            avoided = avoided.suffix(99) + [job]
        }
    }

    private func directory(of place: OutputPlace, job: JobID) throws(TesseraError) -> Directory {
        let path = if let root, let relative = place.relative { "\(root)/\(relative)" } else { place.directory }
        // Whatever the coordinator says, a worker writes only to the output of the job.
        guard path.hasSuffix(".partial-\(job)"), !FilePath.components(of: path).contains("..") else {
            throw Self.suspicious(path)
        }
        guard let root else {
            return try Directory(FilePath.parent(of: path)).directory(FilePath.components(of: path).last ?? ".")
        }
        guard let relative = FilePath.relative(path, to: root) else {
            throw TesseraError(.notAllowed, "the output lies outside the output root \(root)", file: path)
        }
        return try Directory(root).directory(relative)
    }

    private static func suspicious(_ path: String) -> TesseraError {
        TesseraError(.notAllowed, "the coordinator names a place that is no output of the job", file: path)
    }
}

/// Writes blocks into the output's parts, on the thread that made them.
final class DirectOutput: ShardOutput {
    /// By number.
    private let files: [Int: OutputFile]
    private let outputs: [OutputTensor]
    private let buffers: BlockBuffers
    private let syncs: Bool
    private let failure = Atomic(false)

    /// Whether a write failed.
    var hasFailed: Bool { failure.load(ordering: .relaxed) }

    /// Small enough that the kernel copies from cache, and that threads writing to the same file do not wait long for one
    /// another.
    let pieceSize = 1 << 20

    /// - Parameter syncs: whether to sync the parts when the shard ends: where the coordinator has another page cache, which its
    ///   own sync would cover alone.
    init(files: [Int: OutputFile], outputs: [OutputTensor], buffers: BlockBuffers, syncs: Bool) {
        self.files = files
        self.outputs = outputs
        self.buffers = buffers
        self.syncs = syncs
    }

    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
        let output = outputs[tensor]
        guard let file = files[output.part], bytes.count <= output.byteCount - offset else {
            throw TesseraError(.internal, "a block at \(offset) of \(output.name) lies in no part of the output")
        }
        try noted { () throws(TesseraError) in try file.write(bytes, at: output.offset + offset) }
    }

    private func noted(_ body: () throws(TesseraError) -> Void) throws(TesseraError) {
        do throws(TesseraError) {
            try body()
        } catch {
            failure.store(true, ordering: .relaxed)
            throw error
        }
    }

    func store(
        byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
    ) throws {
        try buffers.with { buffer in
            try fill(buffer) { _ in }
            try store(UnsafeRawBufferPointer(start: buffer, count: byteCount), tensor: tensor, offset: offset)
        }
    }

    func finish() throws {
        guard syncs else { return }
        try noted { () throws(TesseraError) in for file in files.values { try file.sync() } }
    }
}
