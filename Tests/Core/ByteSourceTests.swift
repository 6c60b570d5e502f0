import Foundation
import TestSupport
import Testing

@testable import Core

/// Files that change while they are read.
@Suite struct ByteSourceTests {
    private let directory: TemporaryDirectory
    private static let size = 1 << 20
    private var path: String { "\(directory.path)/file" }

    init() throws {
        directory = try TemporaryDirectory()
        try Data(repeating: 7, count: Self.size).write(to: URL(fileURLWithPath: path))
    }

    private func truncate(to size: Int) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: UInt64(size))
        try handle.close()
    }

    /// - Parameter seconds: since 1970.
    private func setTime(_ seconds: Double) throws {
        try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSince1970: seconds)], ofItemAtPath: path)
    }

    private func sum(_ source: any ByteSource, _ range: Range<Int>) throws -> Int {
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 64)
        defer { scratch.deallocate() }
        return try source.withBytes(range, scratch: scratch) { $0.reduce(0) { $0 + Int($1) } }
    }

    /// The pages behind the new end are read as zeros instead of ending the process, and no result counts.
    @Test func aMappedFileMayBeCutShort() throws {
        let source = try MappedSource(ReadableFile(path))
        #expect(try sum(source, 0..<Self.size) == 7 * Self.size)
        try truncate(to: 100)
        let first = try #require(source.direct(0..<Self.size))
        #expect((first + Self.size - 1).load(as: UInt8.self) == 0)
        // Bytes that are still there stay as they are.
        #expect(first.load(as: UInt8.self) == 7)
        let error = #expect(throws: TesseraError.self) { try sum(source, 0..<Self.size) }
        #expect(error?.code == .badData && error?.file == path)
        #expect(error?.problem == "was cut short from 1048576 to 100 bytes while it was read")
        #expect(throws: TesseraError.self) { try source.checkUnchanged() }
    }

    /// The whole file is there again, but what was read meanwhile was not.
    @Test func aFileThatGrowsBackWasNotRead() throws {
        let source = try MappedSource(ReadableFile(path))
        try truncate(to: 100)
        _ = try #require(source.direct(0..<Self.size)).load(fromByteOffset: Self.size - 1, as: UInt8.self)
        try truncate(to: Self.size)
        #expect(throws: TesseraError.self) { try source.checkUnchanged() }
        #expect(throws: TesseraError.self) { try sum(source, 0..<10) }
    }

    /// Entries of ended mappings are used again.
    @Test func aDamagedMappingHarmsNoOther() throws {
        for _ in 0..<3 {
            try Data(repeating: 7, count: Self.size).write(to: URL(fileURLWithPath: path))
            let source = try MappedSource(ReadableFile(path))
            try Data(repeating: 1, count: 5000).write(to: URL(fileURLWithPath: "\(directory.path)/other"))
            let other = try MappedSource(ReadableFile("\(directory.path)/other"))
            try truncate(to: 0)
            #expect(throws: TesseraError.self) { try sum(source, 0..<Self.size) }
            #expect(try sum(other, 0..<5000) == 5000)
            try other.checkUnchanged()
        }
    }

    @Test(arguments: [true, false])
    func aFileThatIsWrittenToIsNoticed(isMapped: Bool) throws {
        let file = try ReadableFile(path), source: any ByteSource = isMapped ? try MappedSource(file) : PreadSource(file)
        try source.checkUnchanged()
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.write(contentsOf: [8])
        try handle.close()
        // Two writes within one tick of the kernel's clock have the same time.
        try setTime(1)
        let error = #expect(throws: TesseraError.self) { try source.checkUnchanged() }
        #expect(error?.code == .badData && error?.problem == "was written to while it was read")
    }

    /// Names come and go without the contents; a time that is set back is seen.
    @Test func onlyItsContentsCount() async throws {
        try setTime(1)
        let source = PreadSource(try ReadableFile(path))
        try FileManager.default.linkItem(atPath: path, toPath: "\(directory.path)/link")
        try source.checkUnchanged()
        try FileManager.default.removeItem(atPath: "\(directory.path)/link")
        // Seen once the kernel's clock has moved on.
        var error: TesseraError?
        try await eventually("another time of change") {
            try setTime(1)
            do throws(TesseraError) { try source.checkUnchanged() } catch let found { error = found }
            return error != nil
        }
        #expect(error?.code == .temporary)
    }
}
