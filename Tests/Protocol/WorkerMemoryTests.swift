import Operators
import Protocol
import Testing

@Suite struct WorkerMemoryTests {
    /// What users are told to give is enough, and a megabyte less is not.
    @Test(arguments: [true, false], [1, 2, 3, 8, 64])
    func theLeastMemoryIsEnough(isConnected: Bool, threads: Int) throws {
        for need in [
            MemoryNeed(), MemoryNeed(shared: 1), MemoryNeed(perThread: 12_345_678), MemoryNeed(shared: 141_557_760),
            MemoryNeed(shared: 3 << 30, perThread: 1 << 28), MemoryNeed(shared: 5 << 40, perThread: 7),
        ] {
            let least = try #require(WorkerMemory.least(for: need, threads: threads, isConnected: isConnected))
            func holds(_ total: Int) -> Bool {
                let memory = WorkerMemory(total: total, threads: threads, isConnected: isConnected)
                return memory.tensors > 0 && need.shared + threads * need.perThread <= memory.tensors
            }
            #expect(holds(least) && least >= WorkerMemory.smallest && least.isMultiple(of: 1_000_000))
            #expect(!holds(least - 1_000_000) || least - 1_000_000 < WorkerMemory.smallest)
            // Nor does more memory make it too little.
            #expect(holds(least + 7_777_777))
        }
    }

    @Test func theOptionsAreWhatUsersType() {
        let need = MemoryNeed(shared: 100_000_000)
        // 16 MiB for the program, and a block of 8 MiB for each thread.
        #expect(WorkerMemory.options(for: need, threads: 1, isConnected: false) == "--memory 126MB or more")
        #expect(
            WorkerMemory.options(for: need, threads: 2, isConnected: false)
                == "--memory 134MB or more, or with --threads 1 and --memory 126MB")
        let many = MemoryNeed(shared: 0, perThread: 1 << 47)
        #expect(WorkerMemory.least(for: many, threads: 2, isConnected: false) == nil)
        #expect(WorkerMemory.options(for: many, threads: 2, isConnected: false) == "--threads 1 and --memory 140737514MB")
        #expect(WorkerMemory.options(for: MemoryNeed(shared: .max), threads: 1, isConnected: true) == nil)
    }
}
