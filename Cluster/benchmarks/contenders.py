"""Those that are measured: each makes one output directory from a family, and says what that took."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from measure import CommandFailed, Usage, measure
from rows import WORKERS

START_SECONDS = 30
UNKNOWN_METHOD = re.compile(r"unknown merge method '[^']*'|'[^']*' is not supported by this version")


@dataclass(frozen=True)
class Sample:
    """One run of a contender."""

    wall: float
    cpu: float
    others: float
    anonymous: int
    max_rss: int
    io: dict[str, int]
    bytes_read: int | None  # of inputs, each counted once, mapped or not; None where nobody counts them
    bytes_written: int
    inner: float | None = None  # the contender's own seconds, without its start and end
    inner_cpu: float | None = None  # the same of the processor

    @classmethod
    def of(cls, usage: Usage, bytes_read: int | None, bytes_written: int, inner: float | None = None) -> "Sample":
        measured = {name: value for name, value in asdict(usage).items() if name != "output"}
        return cls(**measured, bytes_read=bytes_read, bytes_written=bytes_written, inner=inner)


@dataclass(frozen=True)
class Task:
    """What a contender has to do, and with how much of the machine."""

    family: Path
    recipe: Path
    threads: int
    memory: str | None

    @property
    def machine(self) -> list[str]:
        return ["--threads", str(self.threads)] + (["--memory", self.memory] if self.memory else [])


class Contender(Protocol):
    def run(self, out: Path) -> Sample: ...


def reported(usage: Usage, out: Path) -> Sample:
    """Tessera's run, with the bytes that it says it read and wrote."""
    report = json.loads((out / "tessera.report.json").read_text())
    return Sample.of(usage, report["bytesRead"], report["bytesWritten"], report["seconds"])


class TesseraRun:
    def __init__(self, tessera: Path, task: Task):
        self.tessera, self.task = tessera, task

    def run(self, out: Path) -> Sample:
        command = [self.tessera, "run", self.task.recipe, out, *self.task.machine, "--progress", "none"]
        return reported(measure(command, self.task.family), out)


def credentials(certificates: Path | None, name: str) -> list[str]:
    """The options of a process that has the certificate of this name, as Deploy/tls made it; none without TLS."""
    if certificates is None:
        return []
    files = {"--tls-ca": "ca.pem", "--tls-cert": f"{name}.pem", "--tls-key": f"{name}.key"}
    return [word for option, file in files.items() for word in (option, str(certificates / file))]


class TesseraSubmit:
    """A coordinator and its workers, which stay up from the first run to the last, and a submit for each run."""

    def __init__(
        self,
        tessera: Path,
        task: Task,
        blocks: str,
        logs: Path,
        stack: ExitStack,
        state: Path | None = None,
        workers: int = WORKERS,
        certificates: Path | None = None,
    ):
        self.tessera, self.task, self.logs, self.stack = tessera, task, logs, stack
        journal = ["--state", str(state)] if state else []
        host, self.submitter = (credentials(certificates, name) for name in ("127.0.0.1", "submitter"))
        coordinator = self._start("coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", *journal, *host)
        self.address = self._address(coordinator)
        team = [
            self._start(
                *("worker", "--coordinator", self.address, "--name", f"bench-{number}", "--blocks", blocks, *host), *task.machine
            )
            for number in range(workers)
        ]
        self.processes = [process.pid for process in (coordinator, *team)]
        self._wait_for_workers(workers)

    def run(self, out: Path) -> Sample:
        command = [self.tessera, "submit", self.task.recipe, out, "--wait", "--progress", "none", "--coordinator", self.address]
        usage = measure([*command, *self.submitter], self.task.family, companions=self.processes)
        return reported(usage, out)

    def _start(self, *arguments: str) -> subprocess.Popen:
        log = self.stack.enter_context(open(self.logs / f"{arguments[0]}.log", "ab"))
        process = subprocess.Popen(
            [self.tessera, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.stack.callback(stop, process)
        return process

    def _address(self, coordinator: subprocess.Popen) -> str:
        line = coordinator.stdout.readline()
        found = re.match(r"ready: jobs on (\S+),", line)
        if not found:
            raise CommandFailed(f"the coordinator did not start; it said '{line.strip()}'{self._last_words()}")
        return found[1]

    def _wait_for_workers(self, count: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            command = [self.tessera, "status", "--json", "--coordinator", self.address, *self.submitter]
            usage = measure(command, self.task.family)
            if len(json.loads(usage.output)["workers"]) == count:
                return
            time.sleep(0.05)
        raise CommandFailed(f"{count} workers did not join within {START_SECONDS} s{self._last_words()}")

    def _last_words(self) -> str:
        return "".join(f"\n{log.name}:\n{log.read_text()[-1000:]}" for log in sorted(self.logs.glob("*.log")))


def stop(process: subprocess.Popen) -> None:
    """Ends a process of ours at once: there is nothing left that it should finish."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


class Roofline:
    """The same kind of work in plain C (roofline.c)."""

    def __init__(self, program: Path, task: Task, mode: str, durable: bool):
        self.command = [program, *(["--durable"] if durable else []), mode, str(task.threads)]
        self.task = task

    def run(self, out: Path) -> Sample:
        models = sorted(path.parent for path in self.task.family.glob("*/config.json"))  # base, tune-0, tune-1, ...
        usage = measure([*self.command, out, *models], self.task.family)
        said = json.loads(usage.output)
        return Sample.of(usage, said["bytes_read"], said["bytes_written"], said["seconds"])


class Mergekit:
    """mergekit on the same recipe, kept from looking for anything in the network."""

    def __init__(self, environment: Path, task: Task):
        self.program, self.task = environment / "bin" / "mergekit-yaml", task
        threads = {"OMP_NUM_THREADS": str(task.threads)}
        self.environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

    def run(self, out: Path) -> Sample:
        # Its model card asks the hub about every model, and there is no tokenizer.
        extras = ["--no-write-model-card", "--no-copy-tokenizer"]
        usage = measure([self.program, self.task.recipe, out, *extras], self.task.family, self.environment)
        return Sample.of(usage, None, size_of(out))


class TorchMethod:
    """The papers' own code of a method (torch_methods.py), on the same tensors and threads, without the start of Python.
    `inner` and `inner_cpu` are the method's alone."""

    def __init__(self, environment: Path, task: Task, method: str, layers: int | None):
        program = Path(__file__).with_name("torch_methods.py")
        self.command = [environment / "bin" / "python", program, method, task.family]
        self.options = ["--threads", str(task.threads)] + (["--layers", str(layers)] if layers else [])
        self.task = task

    def run(self, out: Path) -> Sample:
        usage = measure([*self.command, out, *self.options], self.task.family)
        said = json.loads(usage.output)
        sample = Sample.of(usage, None, out.stat().st_size, said["seconds"])
        return replace(sample, wall=said["whole_seconds"], cpu=said["whole_cpu"], inner_cpu=said["cpu"])


class Dd:
    """What the disk takes from one process that does nothing else: a part of the family, copied and flushed."""

    def __init__(self, task: Task):
        self.task = task
        self.source = max((task.family / "base").glob("*.safetensors"), key=lambda path: path.stat().st_size)

    def run(self, out: Path) -> Sample:
        usage = measure(["dd", f"if={self.source}", f"of={out}", "bs=8M", "conv=fsync"], self.task.family)
        size = out.stat().st_size
        return Sample.of(usage, size, size)


class DdRead:
    """What the disk gives one process that reads and does nothing else: all weights of the family, one file after the other."""

    def __init__(self, task: Task, sources: list[Path]):
        self.task, self.sources = task, sources

    def run(self, out: Path) -> Sample:
        script = 'for part; do dd if="$part" of=/dev/null bs=8M || exit; done'
        usage = measure(["sh", "-c", script, "sh", *self.sources], self.task.family)
        return Sample.of(usage, sum(source.stat().st_size for source in self.sources), 0)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def why_unknown(tessera: Path, task: Task) -> str | None:
    """Why this build cannot carry out the recipe although nothing is wrong with it: it does not know the method."""
    plan = subprocess.run([tessera, "plan", task.recipe], cwd=task.family, capture_output=True, text=True)
    found = UNKNOWN_METHOD.search(plan.stderr)
    return found[0] if plan.returncode != 0 and found else None
