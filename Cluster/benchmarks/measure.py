"""Runs a command and says what it took: time, processor time, memory and I/O, as the kernel counts them."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from resource import struct_rusage
from typing import IO

SAMPLE_SECONDS = 0.005
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")
ERROR_TAIL = 2000


class CommandFailed(Exception):
    """A measured command that did not end well."""


@dataclass(frozen=True)
class Usage:
    """What one command took, with the processes that worked for it."""

    wall: float
    cpu: float  # seconds, of user and system together
    others: float  # seconds that everybody else on the machine had in the meantime
    anonymous: int  # the most bytes of anonymous memory that all processes had at one moment
    max_rss: int  # the largest resident size in bytes, mapped files included; of several processes, the sum
    io: dict[str, int]  # the kernel's counters; those of mapped files are not in them
    output: str = field(repr=False)


def measure(
    command: Sequence[str | Path],
    directory: Path,
    environment: dict[str, str] | None = None,
    companions: Sequence[int] = (),
) -> Usage:
    """Runs `command` to its end.

    `companions` are processes that were there before and work for the command: what they take in the meantime counts.
    """
    before = [Counters.of(pid) for pid in companions]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        busy, begin = busy_seconds(), time.monotonic()
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        with killed_on_exit(process), MemorySampler([process.pid, *companions]) as memory:
            # Leaves the process a zombie, whose I/O counters can still be read.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            wall, busy = time.monotonic() - begin, busy_seconds() - busy
            own = io_counters(process.pid)
            resources = reap(process)
        check(command, process.returncode, errors)
        text = read_from_start(output)
    spent = [Counters.of(pid) - earlier for pid, earlier in zip(companions, before, strict=True)]
    cpu = resources.ru_utime + resources.ru_stime + sum(counters.cpu for counters in spent)
    return Usage(
        wall=wall,
        cpu=cpu,
        others=max(0.0, busy - cpu),
        anonymous=memory.peak,
        max_rss=resources.ru_maxrss * 1024 + sum(counters.max_rss for counters in spent),
        io={name: count + sum(counters.io[name] for counters in spent) for name, count in own.items()},
        output=text,
    )


@contextmanager
def killed_on_exit(process: subprocess.Popen) -> Iterator[None]:
    """Whatever goes wrong, an interrupt above all: no process is left behind."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def reap(process: subprocess.Popen) -> struct_rusage:
    """Ends the wait for a process that has exited, and returns its resource usage, which Popen.wait would lose."""
    _, status, resources = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return resources


def check(command: Sequence[str | Path], code: int, errors: IO[bytes]) -> None:
    if code != 0:
        words = " ".join(str(word) for word in command)
        raise CommandFailed(f"exit code {code} from: {words}\n{read_from_start(errors)[-ERROR_TAIL:].strip()}")


def read_from_start(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


# ---- Of running processes ----


@dataclass(frozen=True)
class Counters:
    """What a process that goes on running has taken so far."""

    cpu: float
    max_rss: int
    io: dict[str, int]

    @classmethod
    def of(cls, pid: int) -> "Counters":
        return cls(cpu_seconds(pid), status_bytes(Path(f"/proc/{pid}/status").read_bytes(), b"VmHWM"), io_counters(pid))

    def __sub__(self, earlier: "Counters") -> "Counters":
        io = {name: count - earlier.io[name] for name, count in self.io.items()}
        return Counters(self.cpu - earlier.cpu, self.max_rss, io)


def cpu_seconds(pid: int) -> float:
    # The second field, the command's name, may hold spaces and parentheses; user and system time are the 14th and 15th.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * CLOCK_TICK


def busy_seconds() -> float:
    """Seconds that all processors together were not idle, since the machine's start."""
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, read_line("/proc/stat").split()[1:9])
    return (user + nice + system + interrupts + soft_interrupts + stolen) * CLOCK_TICK


def read_line(path: str) -> str:
    with open(path) as file:
        return file.readline()


def io_counters(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(count) for name, count in (line.split(": ") for line in lines)}


def status_bytes(status: bytes, name: bytes) -> int:
    """A size in /proc/PID/status; 0 for a process that has exited, which has none."""
    _, found, rest = status.partition(b"\n" + name + b":")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


class MemorySampler(threading.Thread):
    """Looks at the anonymous memory of some processes again and again, and keeps the largest sum."""

    def __init__(self, pids: Sequence[int]):
        super().__init__(daemon=True)
        self.peak = 0
        self._files = [os.open(f"/proc/{pid}/status", os.O_RDONLY) for pid in pids]
        self._ended = threading.Event()

    def __enter__(self) -> "MemorySampler":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self.join()
        for file in self._files:
            os.close(file)

    def run(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, sum(map(self._anonymous, self._files)))
            self._ended.wait(SAMPLE_SECONDS)

    @staticmethod
    def _anonymous(file: int) -> int:
        with suppress(ProcessLookupError):
            return status_bytes(os.pread(file, 4096, 0), b"RssAnon")
        return 0
