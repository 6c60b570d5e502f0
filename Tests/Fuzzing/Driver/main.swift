import CFuzzer
import FuzzTargets
import Glibc

// Fuzz TARGET [options and corpus folders of libFuzzer]: see Tests/Fuzzing/run.

/// Named by the first argument. libFuzzer's callback can capture nothing.
private enum Chosen {
    static let target = FuzzTarget.all.first { $0.name == CommandLine.arguments.dropFirst().first }
}

guard let target = Chosen.target else {
    print("usage: Fuzz TARGET [OPTION...] [FOLDER...]; the targets are:")
    print(FuzzTarget.all.map(\.name).joined(separator: "\n"))
    exit(64)
}
// libFuzzer ends the process by itself.
atexit {
    guard FuzzTarget.frameCount > 0 else { return }
    print("\(FuzzTarget.frameCount) frames, \(FuzzTarget.messageCount) messages")
}
// Without the target's name.
var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv + 1
var count = CommandLine.argc - 1
let status = LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
    Chosen.target?.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}
exit(status)
