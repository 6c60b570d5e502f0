import Foundation
import Glibc

/// What this process has taken from the system, as Prometheus' clients tell it.
struct ProcessUsage: Sendable {
    let cpuSeconds: Double
    /// Bytes.
    let residentMemory: Int
    let virtualMemory: Int
    let openDescriptors: Int
    let descriptorLimit: Int
    /// Seconds since 1970.
    let startedAt: Double

    /// This process; `nil` where the system does not tell.
    static func current() -> ProcessUsage? {
        var limit = rlimit()
        guard let stat = try? String(contentsOfFile: "/proc/self/stat", encoding: .utf8),
            let system = try? String(contentsOfFile: "/proc/stat", encoding: .utf8),
            let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count,
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
        else { return nil }
        return ProcessUsage(
            stat: stat, system: system, openDescriptors: descriptors, descriptorLimit: Int(clamping: limit.rlim_cur),
            ticksPerSecond: Double(sysconf(Int32(_SC_CLK_TCK))), pageSize: sysconf(Int32(_SC_PAGESIZE)))
    }

    /// - Parameters:
    ///   - stat: the text of /proc/PID/stat (proc_pid_stat(5)).
    ///   - system: the text of /proc/stat (proc_stat(5)).
    init?(
        stat: String, system: String, openDescriptors: Int, descriptorLimit: Int, ticksPerSecond: Double, pageSize: Int
    ) {
        // The name of the program, in parentheses, may hold anything.
        guard let end = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: end)...].split(whereSeparator: \.isWhitespace)
        guard fields.count > 21, let user = Double(fields[11]), let kernel = Double(fields[12]), let start = Double(fields[19]),
            let virtual = Int(fields[20]), let pages = Int(fields[21]),
            let boot = system.split(separator: "\n").first(where: { $0.hasPrefix("btime ") }),
            let bootedAt = Double(boot.dropFirst(6))
        else { return nil }
        cpuSeconds = (user + kernel) / ticksPerSecond
        residentMemory = pages &* pageSize
        virtualMemory = virtual
        self.openDescriptors = openDescriptors
        self.descriptorLimit = descriptorLimit
        startedAt = bootedAt + start / ticksPerSecond
    }
}
