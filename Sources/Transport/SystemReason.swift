import Glibc

/// A failed system call on a socket, in words.
func systemReason(_ number: Int32) -> String {
    switch number {
    case ECONNREFUSED: "the connection was refused"
    case ECONNRESET, EPIPE: "the connection was reset by the other side"
    case ETIMEDOUT: "there was no answer in time"
    case EHOSTUNREACH, ENETUNREACH: "there is no route to the host"
    case EADDRINUSE: "the port is in use"
    case EADDRNOTAVAIL: "this host does not have the address"
    case EACCES: "this user may not open the port"
    default: String(cString: strerror(number))
    }
}
