"""Tessera's processes on the hosts of the lab: started again whenever they end, and watched."""

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hosts import Host

Shard = tuple[str, int]  # of a job, by its number


@dataclass
class Usage:
    """What a process holds."""

    descriptors: int
    resident: int  # bytes

    @staticmethod
    def of(pid: int) -> "Usage":
        status = Path(f"/proc/{pid}/status").read_text()
        kilobytes = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
        return Usage(len(os.listdir(f"/proc/{pid}/fd")), kilobytes << 10)


@dataclass
class Service:
    """A process that is started again when it has ended. Every end that the lab did not bring about is a violation."""

    name: str
    host: Host
    words: list[str | Path]
    logs: Path
    violation: Callable[[str], None]
    ended: Callable[[], None] = lambda: None  # called while the process is gone
    process: asyncio.subprocess.Process | None = None
    lives: int = 0
    is_expected_to_end: bool = False
    pause: float = 0.0  # seconds before the next start
    is_over: bool = False
    frozen: int = 0  # how many faults hold it
    _started: asyncio.Event = field(default_factory=asyncio.Event)

    def log(self, life: int) -> Path:
        return self.logs / f"{self.name}.{life}.log"

    async def run(self) -> None:
        while not self.is_over:
            self.lives += 1
            self.is_expected_to_end = False
            with open(self.log(self.lives), "wb") as log:
                command = self.host.command(*self.words)
                self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
                self._started.set()
                code = await self.process.wait()
            self._started.clear()
            if not self.is_expected_to_end:
                self.violation(f"{self.name} ended by itself with {code}: see {self.log(self.lives).name}")
            self.ended()
            await asyncio.sleep(self.pause)

    async def output(self) -> bytes:
        """What this life has said so far."""
        await self._started.wait()
        return self.log(self.lives).read_bytes()

    async def signal(self, number: signal.Signals) -> None:
        await self._started.wait()
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            pass

    async def kill(self, pause: float = 0.0) -> None:
        await self._started.wait()
        self.is_expected_to_end, self.pause = True, pause
        await self.signal(signal.SIGKILL)

    async def drain(self) -> None:
        await self._started.wait()
        self.is_expected_to_end, self.pause = True, 0.0
        await self.signal(signal.SIGTERM)

    async def freeze(self, seconds: float) -> None:
        self.frozen += 1
        await self.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.frozen -= 1
        if not self.frozen:
            await self.signal(signal.SIGCONT)

    def usage(self) -> Usage:
        return Usage.of(self.process.pid)


def committed_shards(state: Path) -> set[Shard]:
    """The shards that a journal holds as committed, read from a copy."""
    with tempfile.TemporaryDirectory() as copies:
        for file in state.glob("journal.sqlite*"):
            shutil.copy(file, copies)
        journal = Path(copies) / "journal.sqlite"
        if not journal.exists():
            return set()
        connection = sqlite3.connect(journal)
        try:
            return set(connection.execute("SELECT job.id, shard.number FROM shard JOIN job ON job.number = shard.job"))
        except sqlite3.OperationalError:  # killed before its tables were made
            return set()
        finally:
            connection.close()


def leased_shards(log: Path) -> set[Shard]:
    """The shards that a coordinator gave away, as its log (level debug) says."""
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        if line.endswith("shard leased"):
            found.add((re.search(r"\bjob=(\w+)", line)[1], int(re.search(r"\bshard=(\d+)", line)[1])))
    return found
