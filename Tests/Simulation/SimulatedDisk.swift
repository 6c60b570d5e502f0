import Core
import TestSupport

/// The outputs on the coordinator's host: what everybody reads there, and what a power failure would leave of it.
///
/// Bytes that are written and not synced are lost, kept or torn when the power fails. They survive when only a process ends.
final class SimulatedDisk: @unchecked Sendable {
    fileprivate struct File {
        var bytes: [UInt8]
        /// `nil` while a power failure may take the file away.
        var durable: [UInt8]?
        /// Writes since the last sync.
        var pending: [(offset: Int, bytes: [UInt8])] = []

        mutating func write(_ new: [UInt8], at offset: Int) {
            bytes.replaceSubrange(offset..<offset + new.count, with: new)
            pending.append((offset, new))
        }

        /// Only what was written since the last sync reaches the disk: pages that an earlier sync lost are taken for clean.
        mutating func sync() {
            var disk = durable ?? [UInt8](repeating: 0, count: bytes.count)
            for write in pending { disk.replaceSubrange(write.offset..<write.offset + write.bytes.count, with: write.bytes) }
            durable = disk
            pending = []
        }

        /// The sync fails, and what was to be written is lost, although it can still be read.
        mutating func failSync() { pending = [] }
    }

    fileprivate typealias Directory = [String: File]

    fileprivate let simulation: Simulation
    /// By name: outputs, and `OUT.partial-<job>`.
    fileprivate var directories: [String: Directory] = [:]
    /// Directories whose names and files a power failure leaves.
    fileprivate var durableNames: Set<String> = []
    fileprivate var isFull = false
    fileprivate var failsSync = false
    /// Where `sync` says that it is done before it is (`Mutation`).
    fileprivate let syncsLate: Bool
    /// Whether a `sync` that fails does not say so (`Mutation`).
    fileprivate let hidesFailures: Bool
    /// Called with each output that gets its name, and its files.
    var whenPublished: (_ output: String, _ files: [String: [UInt8]]) -> Void = { _, _ in }

    init(_ simulation: Simulation, syncsLate: Bool, hidesFailures: Bool) {
        self.hidesFailures = hidesFailures
        self.simulation = simulation
        self.syncsLate = syncsLate
    }

    static func partial(_ output: String, _ job: String) -> String { "\(output).partial-\(job)" }

    // MARK: What there is

    var unfinished: [String] { directories.keys.filter { $0.contains(".partial-") }.sorted() }

    func files(of output: String) -> [String: [UInt8]]? { directories[output]?.mapValues(\.bytes) }

    /// The bytes that are there even after a power failure; `nil` where there is no such part.
    func durableBytes(in output: String, job: String, part: String) -> [UInt8]? {
        let name = Self.partial(output, job)
        return durableNames.contains(name) ? directories[name]?[part]?.durable : nil
    }

    // MARK: Faults

    func fill(for duration: Duration) {
        isFull = true
        simulation.after(duration) { self.isFull = false }
    }

    func failSyncs(for duration: Duration) {
        failsSync = true
        simulation.after(duration) { self.failsSync = false }
    }

    /// What was not synced is lost, kept or torn.
    func losePower() {
        for name in directories.keys.sorted() {
            guard durableNames.contains(name) || simulation.chance(0.5) else {
                directories[name] = nil
                continue
            }
            for (file, contents) in (directories[name] ?? [:]).sorted(by: { $0.key < $1.key }) {
                directories[name]?[file] = afterPowerLoss(contents)
            }
            durableNames.insert(name)
        }
    }

    private func afterPowerLoss(_ file: File) -> File? {
        guard var bytes = file.durable ?? (simulation.chance(0.5) ? [UInt8](repeating: 0, count: file.bytes.count) : nil) else {
            return nil
        }
        for write in file.pending {
            let kept =
                switch simulation.draw(0..<3) {
                case 0: 0
                case 1: write.bytes.count
                default: simulation.draw(0..<write.bytes.count + 1)
                }
            bytes.replaceSubrange(write.offset..<write.offset + kept, with: write.bytes.prefix(kept))
        }
        return File(bytes: bytes, durable: bytes)
    }

    // MARK: Workers

    /// Writes a block into a part, as a worker does that sees the output.
    ///
    /// - Parameter syncs: for a worker on another host.
    /// - Throws: `io` when there is no such file any more, or no space.
    func write(_ bytes: [UInt8], in directory: String, part: String, at offset: Int, syncs: Bool) throws(TesseraError) {
        guard !isFull else { throw TesseraError(.io, Self.noSpace.problem, file: "\(directory)/\(part)") }
        guard let count = directories[directory]?[part]?.bytes.count, offset >= 0, bytes.count <= count - offset else {
            throw TesseraError(.io, "no such part", file: "\(directory)/\(part)")
        }
        directories[directory]?[part]?.write(bytes, at: offset)
        if syncs { directories[directory]?[part]?.sync() }
    }

    fileprivate static let noSpace = TesseraError(.io, "no space left on the disk")

    // MARK: The coordinator

    /// The store as one process has it.
    func store(of process: SimulatedProcess) -> any OutputStore { SimulatedStore(disk: self, process: process) }
}

private struct SimulatedStore: OutputStore {
    let disk: SimulatedDisk
    let process: SimulatedProcess

    func resolve(_ path: String, workingDirectory: String) throws(TesseraError) -> String { path }

    func begin(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> any OutputTransaction {
        try process.crashPoint()
        guard disk.directories[output] == nil || overwrite else {
            throw TesseraError(.cannotCreate, "the output exists", file: output)
        }
        let name = SimulatedDisk.partial(output, job)
        disk.directories[name] = [:]
        try process.crashPoint()
        return SimulatedOutput(disk: disk, process: process, output: output, name: name)
    }

    func resume(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> (any OutputTransaction)? {
        try process.crashPoint()
        let name = SimulatedDisk.partial(output, job)
        guard disk.directories[name] != nil else { return nil }
        guard disk.directories[output] == nil || overwrite else {
            throw TesseraError(.cannotCreate, "the output exists", file: output)
        }
        return SimulatedOutput(disk: disk, process: process, output: output, name: name)
    }

    func discard(_ output: String, job: String) {
        guard process.isAlive else { return }
        disk.directories[SimulatedDisk.partial(output, job)] = nil
    }

    func file(_ name: String, of output: String) throws(TesseraError) -> [UInt8]? {
        try process.crashPoint()
        return disk.directories[output]?[name]?.bytes
    }
}

/// One output as one process makes it.
private final class SimulatedOutput: OutputTransaction, @unchecked Sendable {
    private let disk: SimulatedDisk
    private let process: SimulatedProcess
    private let output: String
    private let name: String
    private var parts: [String] = []
    private var headers: [String: [UInt8]] = [:]
    private var isOver = false

    init(disk: SimulatedDisk, process: SimulatedProcess, output: String, name: String) {
        self.disk = disk
        self.process = process
        self.output = output
        self.name = name
    }

    var location: OutputLocation? { OutputLocation(directory: name, relative: nil) }

    private func check(needsSpace: Bool = false) throws(TesseraError) {
        try process.crashPoint()
        guard !isOver, disk.directories[name] != nil else { throw TesseraError(.cancelled, "the output was given up") }
        if needsSpace, disk.isFull { throw SimulatedDisk.noSpace }
    }

    func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        do throws(TesseraError) {
            for part in parts {
                try check(needsSpace: true)
                var file = SimulatedDisk.File(bytes: [UInt8](repeating: 0, count: part.size))
                file.write(part.header, at: 0)
                disk.directories[name]?[part.name] = file
            }
        } catch {
            for part in parts { disk.directories[name]?[part.name] = nil }
            throw error
        }
        self.parts = parts.map(\.name)
        headers = Dictionary(uniqueKeysWithValues: parts.map { ($0.name, $0.header) })
    }

    func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        try check()
        let names = Set(parts.map(\.name))
        for file in (disk.directories[name] ?? [:]).keys where !names.contains(file) { disk.directories[name]?[file] = nil }
        for part in parts {
            guard disk.directories[name]?[part.name]?.bytes.count == part.size else {
                throw TesseraError(.badData, "another size", file: part.name)
            }
            disk.directories[name]?[part.name]?.write(part.header, at: 0)
        }
        self.parts = parts.map(\.name)
        headers = Dictionary(uniqueKeysWithValues: parts.map { ($0.name, $0.header) })
    }

    func sync(_ parts: Set<Int>) throws(TesseraError) {
        try check()
        try failSync()
        guard !disk.syncsLate else {
            return disk.simulation.after(.seconds(2)) { [self] in if process.isAlive { makeDurable(parts) } }
        }
        makeDurable(parts)
        try process.crashPoint()
    }

    private func failSync() throws(TesseraError) {
        guard disk.failsSync else { return }
        for file in (disk.directories[name] ?? [:]).keys { disk.directories[name]?[file]?.failSync() }
        guard !disk.hidesFailures else { return }
        throw TesseraError(.io, "the disk could not make the bytes durable")
    }

    func check(_ parts: Set<Int>) throws(TesseraError) { try check() }

    func probe() throws(TesseraError) {
        try check(needsSpace: true)
        if disk.failsSync { throw TesseraError(.io, "the disk could not make the bytes durable") }
    }

    private func makeDurable(_ parts: Set<Int>) {
        for part in parts where self.parts.indices.contains(part) { disk.directories[name]?[self.parts[part]]?.sync() }
        // The directory's entries, and with them files that hold nothing yet.
        for (file, contents) in disk.directories[name] ?? [:] where contents.durable == nil {
            disk.directories[name]?[file]?.durable = [UInt8](repeating: 0, count: contents.bytes.count)
        }
        disk.durableNames.insert(name)
    }

    func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError) {
        try check(needsSpace: true)
        guard parts.indices.contains(part), let size = disk.directories[name]?[parts[part]]?.bytes.count, offset >= 0,
            bytes.count <= size - offset
        else { throw TesseraError(.internal, "there is no such place in part \(part)") }
        disk.directories[name]?[parts[part]]?.write(Array(bytes), at: offset)
    }

    func putFile(_ file: String, _ bytes: [UInt8]) throws(TesseraError) {
        try check(needsSpace: true)
        disk.directories[name]?[file] = SimulatedDisk.File(bytes: bytes, pending: [(0, bytes)])
        try failSync()
        disk.directories[name]?[file]?.sync()
    }

    func fileNames() throws(TesseraError) -> [String] {
        try check()
        return (disk.directories[name] ?? [:]).keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    func open(_ file: String) throws(TesseraError) -> any ByteSource {
        try check()
        guard let bytes = disk.directories[name]?[file]?.bytes else {
            throw TesseraError(.inputMissing, "no such file", file: file)
        }
        return try MemoryFiles([file: bytes]).open(file)
    }

    func commit() throws(TesseraError) {
        try check()
        for (part, header) in headers { disk.directories[name]?[part]?.write(header, at: 0) }
        try failSync()
        for file in (disk.directories[name] ?? [:]).keys { disk.directories[name]?[file]?.sync() }
        disk.durableNames.insert(name)
        try process.crashPoint()
        guard disk.directories[output] == nil else {
            throw TesseraError(.cannotCreate, "the output appeared while the job ran", file: output)
        }
        isOver = true
        let files = disk.directories.removeValue(forKey: name)
        disk.directories[output] = files
        disk.durableNames.insert(output)
        // What is on the disk, not what can be read for now.
        disk.whenPublished(output, files?.mapValues { $0.durable ?? [] } ?? [:])
        try process.crashPoint()
    }

    func abort() {
        guard process.isAlive, !isOver else { return }
        isOver = true
        disk.directories[name] = nil
    }
}
