package import Core
import Synchronization

/// Outputs in memory. The store can be told to fail, to be slow and to be full, and it keeps a journal of what it was asked.
package final class MemoryOutputStore: OutputStore {
    package enum Operation: String, Sendable, Hashable {
        case begin, resume, layOut, reopen, sync, put, putFile, probe, commit, abort
    }

    fileprivate struct State {
        var outputs: [String: [String: [UInt8]]] = [:]
        /// Unfinished outputs, by `OUT.partial-<job>`.
        var unfinished: [String: [String: [UInt8]]] = [:]
        var journal: [String] = []
        var failures: [Operation: TesseraError] = [:]
        var hooks: [Operation: @Sendable () -> Void] = [:]
        var capacity = Int.max

        var used: Int { (outputs.values + Array(unfinished.values)).joined().reduce(0) { $0 + $1.value.count } }
    }

    fileprivate let state = Mutex(State())

    package init() {}

    /// Every later `operation` throws `error`, or none where `error` is `nil`.
    package func fail(_ operation: Operation, with error: TesseraError?) { state.withLock { $0.failures[operation] = error } }

    /// Called at the beginning of every later `operation`, outside of any lock: a hook that waits makes the store slow.
    package func before(_ operation: Operation, _ hook: @escaping @Sendable () -> Void) {
        state.withLock { $0.hooks[operation] = hook }
    }

    /// Bytes that all outputs together may take.
    package func limit(to bytes: Int) { state.withLock { $0.capacity = bytes } }

    /// The files of each committed output.
    package var outputs: [String: [String: [UInt8]]] { state.withLock { $0.outputs } }

    /// The names of outputs that were begun and are neither committed nor removed, sorted.
    package var unfinished: [String] { state.withLock { $0.unfinished.keys.sorted() } }

    /// What the store was asked to do, in order, such as `commit /out`.
    package var journal: [String] { state.withLock { $0.journal } }

    fileprivate func enter(_ operation: Operation, _ subject: String) throws(TesseraError) {
        let (hook, failure) = state.withLock { state in
            state.journal.append("\(operation) \(subject)")
            return (state.hooks[operation], state.failures[operation])
        }
        hook?()
        if let failure { throw failure }
    }

    package func resolve(_ path: String, workingDirectory: String) throws(TesseraError) -> String {
        path.hasPrefix("/") ? path : "\(workingDirectory)/\(path)"
    }

    package func begin(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> any OutputTransaction {
        try enter(.begin, output)
        let name = "\(output).partial-\(job)"
        try state.withLock { state throws(TesseraError) in
            guard overwrite || state.outputs[output] == nil else {
                throw TesseraError(.cannotCreate, "the output exists", file: output)
            }
            state.unfinished[name] = [:]
        }
        return Transaction(store: self, output: output, name: name)
    }

    package func resume(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> (any OutputTransaction)? {
        try enter(.resume, output)
        let name = "\(output).partial-\(job)"
        guard state.withLock({ $0.unfinished[name] != nil }) else { return nil }
        return Transaction(store: self, output: output, name: name)
    }

    package func discard(_ output: String, job: String) {
        state.withLock { $0.unfinished["\(output).partial-\(job)"] = nil }
    }

    package func file(_ name: String, of output: String) throws(TesseraError) -> [UInt8]? {
        state.withLock { $0.outputs[output]?[name] }
    }

    private final class Transaction: OutputTransaction {
        private let store: MemoryOutputStore
        private let output: String
        private let name: String
        private let parts = Mutex<[String]>([])

        init(store: MemoryOutputStore, output: String, name: String) {
            self.store = store
            self.output = output
            self.name = name
        }

        var location: OutputLocation? { nil }

        /// - Throws: `cancelled` once the output is committed or removed.
        private func change<Result>(
            _ body: (inout [String: [UInt8]]) throws(TesseraError) -> Result
        ) throws(TesseraError) -> Result {
            try store.state.withLock { state throws(TesseraError) in
                guard var files = state.unfinished[name] else { throw TesseraError(.cancelled, "the output was given up") }
                let result = try body(&files)
                state.unfinished[name] = files
                guard state.used <= state.capacity else { throw TesseraError(.io, "no space left", file: output) }
                return result
            }
        }

        func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
            do throws(TesseraError) {
                try store.enter(.layOut, output)
                try change { contents throws(TesseraError) in
                    for part in parts {
                        contents[part.name] = part.header + [UInt8](repeating: 0, count: part.size - part.header.count)
                    }
                    for file in files {
                        var whole: [UInt8] = []
                        try file.forEachPiece { (bytes, _) throws(TesseraError) in whole += bytes }
                        contents[file.name] = whole
                    }
                }
            } catch {
                store.state.withLock { if $0.unfinished[name] != nil { $0.unfinished[name] = [:] } }
                throw error
            }
            self.parts.withLock { $0 = parts.map(\.name) }
        }

        func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
            try store.enter(.reopen, output)
            try change { contents throws(TesseraError) in
                for part in parts where contents[part.name]?.count != part.size {
                    throw TesseraError(.badData, "another size", file: part.name)
                }
                let kept = contents.filter { name, _ in parts.contains { $0.name == name } }
                contents = kept.merging(files.map { ($0.name, Array($0.path.utf8)) }) { $1 }
            }
            self.parts.withLock { $0 = parts.map(\.name) }
        }

        func sync(_ parts: Set<Int>) throws(TesseraError) {
            try store.enter(.sync, output)
            try change { _ in }
        }

        func check(_ parts: Set<Int>) throws(TesseraError) {
            guard store.state.withLock({ $0.unfinished[name] != nil }) else {
                throw TesseraError(.cannotCreate, "the unfinished output was removed by others", file: name)
            }
        }

        func probe() throws(TesseraError) {
            try store.enter(.probe, output)
            try change { _ in }
        }

        func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError) {
            try store.enter(.put, "\(output) \(part) \(offset)")
            let file = parts.withLock { $0.indices.contains(part) ? $0[part] : "" }
            try change { contents throws(TesseraError) in
                guard let size = contents[file]?.count, offset >= 0, offset + bytes.count <= size else {
                    throw TesseraError(.internal, "there is no such place in part \(part)")
                }
                contents[file]?.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            }
        }

        func putFile(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {
            try store.enter(.putFile, "\(output) \(name)")
            try change { $0[name] = bytes }
        }

        func fileNames() throws(TesseraError) -> [String] {
            try change { $0.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }
        }

        func open(_ name: String) throws(TesseraError) -> any ByteSource {
            guard let bytes = try change({ $0[name] }) else { throw TesseraError(.inputMissing, "no such file", file: name) }
            return try MemoryFiles([name: bytes]).open(name)
        }

        func commit() throws(TesseraError) {
            try store.enter(.commit, output)
            try change { _ in }
            store.state.withLock { $0.outputs[output] = $0.unfinished.removeValue(forKey: name) }
        }

        func abort() {
            try? store.enter(.abort, output)
            store.state.withLock { _ = $0.unfinished.removeValue(forKey: name) }
        }
    }
}
