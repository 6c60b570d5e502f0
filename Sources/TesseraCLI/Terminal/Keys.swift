import Glibc

/// The keys that are pressed while lines change in place. They are not shown, and come without Return; Ctrl-C and Ctrl-Z are
/// signals as ever.
final class Keys {
    private let descriptor: Int32
    /// How the terminal was; `nil` where there is none, or it belongs to others now.
    private var before: termios?

    init(_ descriptor: Int32 = STDIN_FILENO) {
        self.descriptor = descriptor
        takeTerminal()
    }

    deinit { restore() }

    /// Whether the key has been pressed since this was last asked; other keys are forgotten.
    func wasPressed(_ key: Character) -> Bool {
        // A shell that had stopped the command has set the terminal as it likes it.
        takeTerminal()
        guard before != nil else { return false }
        var found = false, waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            bytes = [UInt8](repeating: 0, count: 64)
        while poll(&waiting, 1, 0) == 1, waiting.revents & Int16(POLLIN) != 0 {
            let count = read(descriptor, &bytes, bytes.count)
            guard count > 0 else { break }
            found = found || bytes[..<count].contains { $0 == key.asciiValue }
        }
        return found
    }

    func restore() {
        guard var settings = before else { return }
        before = nil
        guard isInForeground else { return }
        tcsetattr(descriptor, TCSANOW, &settings)
    }

    private func takeTerminal() {
        var settings = termios()
        guard isInForeground, tcgetattr(descriptor, &settings) == 0 else { return }
        let flags = tcflag_t(ICANON | ECHO)
        guard settings.c_lflag & flags != 0 else { return }
        before = settings
        settings.c_lflag &= ~flags
        tcsetattr(descriptor, TCSANOW, &settings)
    }

    /// Whoever sets a terminal from the background is stopped.
    private var isInForeground: Bool {
        let group = tcgetpgrp(descriptor)
        return isatty(descriptor) == 1 && (group < 0 || group == getpgrp())
    }
}
