import Glibc
import Synchronization

/// The keys that are pressed while lines change in place. They are not shown, and come without Return; Ctrl-C and Ctrl-Z are
/// signals as ever.
final class Keys {
    /// How the process's terminal was before keys were read from it; `nil` where they are not.
    private static let before = Mutex<termios?>(nil)
    private static let descriptor = STDIN_FILENO

    init() { Self.takeTerminal() }

    deinit { Self.restoreTerminal() }

    /// Whether the key has been pressed since this was last asked; other keys are forgotten.
    func wasPressed(_ key: Character) -> Bool {
        // A shell that had stopped the command has set the terminal as it likes it.
        Self.takeTerminal()
        guard Self.before.withLock({ $0 != nil }) else { return false }
        var found = false, waiting = pollfd(fd: Self.descriptor, events: Int16(POLLIN), revents: 0),
            bytes = [UInt8](repeating: 0, count: 64)
        while poll(&waiting, 1, 0) == 1, waiting.revents & Int16(POLLIN) != 0 {
            let count = read(Self.descriptor, &bytes, bytes.count)
            guard count > 0 else { break }
            found = found || bytes[..<count].contains { $0 == key.asciiValue }
        }
        return found
    }

    /// Sets the terminal as it was. Also for a process that ends without unwinding.
    static func restoreTerminal() {
        before.withLock { before in
            guard var settings = before else { return }
            before = nil
            guard isInForeground else { return }
            tcsetattr(descriptor, TCSANOW, &settings)
        }
    }

    private static func takeTerminal() {
        before.withLock { before in
            var settings = termios()
            guard isInForeground, tcgetattr(descriptor, &settings) == 0 else { return }
            let flags = tcflag_t(ICANON | ECHO)
            guard settings.c_lflag & flags != 0 else { return }
            before = settings
            settings.c_lflag &= ~flags
            tcsetattr(descriptor, TCSANOW, &settings)
        }
    }

    /// Whoever sets a terminal from the background is stopped.
    private static var isInForeground: Bool {
        let group = tcgetpgrp(descriptor)
        return isatty(descriptor) == 1 && (group < 0 || group == getpgrp())
    }
}
