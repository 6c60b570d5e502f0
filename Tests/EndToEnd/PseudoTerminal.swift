import Foundation
import Synchronization

/// A terminal of 24 lines and 80 columns, and what is typed at it and shown.
final class PseudoTerminal: Sendable {
    /// What a process reads from and writes to.
    let end: FileHandle
    private let user: Int32
    private let text = Mutex<[UInt8]>([])

    /// TIOCSPTLCK and TIOCGPTN of ioctl_tty(2), which the C library's module leaves out.
    private static let setLock: UInt = 0x4004_5431, getNumber: UInt = 0x8004_5430

    struct NoTerminal: Error {}

    init() throws {
        user = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var lock: CInt = 0, number: CUnsignedInt = 0
        guard user >= 0, ioctl(user, Self.setLock, &lock) == 0, ioctl(user, Self.getNumber, &number) == 0 else {
            throw NoTerminal()
        }
        let process = open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC)
        guard process >= 0 else { throw NoTerminal() }
        end = FileHandle(fileDescriptor: process, closeOnDealloc: true)
        var size = winsize(ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0)
        guard ioctl(user, UInt(TIOCSWINSZ), &size) == 0 else { throw NoTerminal() }
        _ = fcntl(user, F_SETFL, O_NONBLOCK)
    }

    deinit { close(user) }

    /// Everything that was shown so far.
    var received: String {
        var bytes = [UInt8](repeating: 0, count: 4096)
        return text.withLock { text in
            while true {
                let count = read(user, &bytes, bytes.count)
                guard count > 0 else { break }
                text += bytes[..<count]
            }
            return String(decoding: text, as: UTF8.self)
        }
    }

    func type(_ text: String) { _ = text.withCString { write(user, $0, strlen($0)) } }

    /// `c_lflag` of termios(3).
    var localFlags: tcflag_t {
        var settings = termios()
        tcgetattr(user, &settings)
        return settings.c_lflag
    }
}
