"""The hosts of a cluster, by ssh: what `agent.sh` does there."""

import argparse
import contextlib
import hashlib
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inventory import Inventory, InventoryError, read

ROOT = Path(__file__).resolve().parents[2]
AGENT = Path(__file__).with_name("agent.sh").read_text()
SSH_OPTIONS = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
SSH_FAILED = 255  # ssh's exit code where it is not the command's
USAGE, UNREACHABLE, TEMPORARY = 64, 69, 75  # exit codes, as tessera's

Item = TypeVar("Item")
Result = TypeVar("Result")


class RemoteError(Exception):
    """What went wrong on which host."""

    def __init__(self, host: str, text: str, is_unreachable: bool = False):
        super().__init__(f"{host}: {text}")
        self.is_unreachable = is_unreachable


@dataclass(frozen=True)
class Remote:
    """A host, and the directory of one cluster on it."""

    host: str
    cluster: str
    ssh: tuple[str, ...]  # the ssh command and its options

    def words(self, verb: str, *arguments: object) -> list[str]:
        command = ["sh", "-c", AGENT, "agent", self.cluster, verb, *map(str, arguments)]
        return [*self.ssh, *SSH_OPTIONS, self.host, shlex.join(command)]

    def run(self, verb: str, *arguments: object, content: bytes = b"") -> str:
        """What the agent says.

        Raises `RemoteError`, with the last of what it or ssh complains about.
        """
        done = subprocess.run(self.words(verb, *arguments), input=content, capture_output=True)
        if done.returncode != 0:
            complaint = done.stderr.decode(errors="replace").strip() or f"{verb} failed with {done.returncode}"
            raise RemoteError(self.host, complaint, done.returncode == SSH_FAILED)
        return done.stdout.decode(errors="replace").strip()


@dataclass
class Probe:
    """What a host is."""

    machine: str = ""
    directory: str = ""
    memory: int = 0  # bytes that are free
    skew: float = 0.0  # seconds that its clock is ahead of this machine's
    has_systemd: bool = False
    has_openblas: bool = False
    executables: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()  # directories

    @staticmethod
    def of(remote: Remote, directories: Iterable[str]) -> "Probe":
        before = time.time()
        lines = [line.partition("=") for line in remote.run("probe", *directories).splitlines()]
        middle = (before + time.time()) / 2
        values = {key: value for key, _, value in lines}

        def several(name: str) -> tuple[str, ...]:
            return tuple(value for key, _, value in lines if key == name)

        return Probe(
            values["machine"], values["directory"], int(values["memory"]), float(values["clock"]) - middle,
            values["systemd"] == "yes", values["openblas"] == "yes", several("has"), several("lacks"),
        )  # fmt: skip


@dataclass
class Cluster:
    """The hosts of an inventory."""

    inventory: Inventory
    ssh: tuple[str, ...]

    def remote(self, host: str) -> Remote:
        return Remote(host, self.inventory.name, self.ssh)

    def each(self, items: Iterable[Item], body: Callable[[Item], Result]) -> list[tuple[Item, Result | RemoteError]]:
        """What `body` returns or raises for each item, all at the same time."""

        def attempt(item: Item) -> Result | RemoteError:
            try:
                return body(item)
            except RemoteError as error:
                return error

        found = list(items)
        with ThreadPoolExecutor(max_workers=max(1, min(32, len(found)))) as pool:
            return list(zip(found, pool.map(attempt, found)))

    @contextlib.contextmanager
    def tunnel(self) -> Iterator[list[str]]:
        """The options with which a client of this machine reaches the coordinator, through ssh to its host."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        service = self.inventory.coordinator
        forward = f"127.0.0.1:{port}:localhost:{self.inventory.port}"
        command = [*self.ssh, *SSH_OPTIONS, "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, service.host]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 30
            while is_free(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    _, complaint = process.communicate()
                    raise RemoteError(service.host, complaint.decode(errors="replace").strip(), True)
                time.sleep(0.1)
            yield ["--coordinator", f"localhost:{port}", *self.credentials("viewer")]
        finally:
            process.kill()
            process.wait()

    def credentials(self, name: str, directory: str | Path | None = None) -> list[str]:
        """The options for a certificate, which lies in `directory`, else beside the inventory."""
        if self.inventory.certificates is None:
            return []
        folder = directory or self.inventory.certificates
        return ["--tls-ca", f"{folder}/ca.pem", "--tls-cert", f"{folder}/{name}.pem", "--tls-key", f"{folder}/{name}.key"]


def is_free(port: int) -> bool:
    """Whether nobody listens at a port of this machine. A connection would tell as well, and leave a line in a log."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


def workers_of(tessera: Path, options: list[str]) -> dict[str, str]:
    """The states of the workers that the coordinator knows, by their names; none while it does not answer."""
    done = subprocess.run([tessera, "status", "--json", *options], capture_output=True)
    return {worker["name"]: worker["state"] for worker in json.loads(done.stdout)["workers"]} if done.returncode == 0 else {}


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def say(text: str) -> None:
    print(text, flush=True)


def complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser(text: str | None) -> argparse.ArgumentParser:
    """What all commands take: the inventory, and how to call ssh."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("inventory", type=Path, metavar="INVENTORY", help="a TOML file: Cluster/ssh/README.md")
    found.add_argument("--ssh", default="ssh", metavar="COMMAND", help="how to call ssh, such as 'ssh -F FILE'")
    return found


def add_executable(found: argparse.ArgumentParser) -> None:
    found.add_argument(
        "--tessera", type=Path, default=ROOT / ".build/tessera", metavar="FILE",
        help="the executable that Deploy/static made (default: %(default)s)",
    )  # fmt: skip


def main(body: Callable[[Cluster, argparse.Namespace], int], options: argparse.Namespace) -> int:
    """The exit code of a command."""
    try:
        inventory, tessera = read(options.inventory), getattr(options, "tessera", None)
        if tessera is not None and not tessera.is_file():
            complain(f"error: there is no executable {tessera}; make it with Deploy/static, or name it with --tessera")
            return USAGE
        return body(Cluster(inventory, tuple(shlex.split(options.ssh))), options)
    except InventoryError as error:
        complain(f"error: {error}")
        return error.code
    except OSError as error:
        complain(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
        return USAGE
    except subprocess.CalledProcessError as error:
        complain(f"error: {error.cmd[0]} ended with {error.returncode}")
        return TEMPORARY
    except RemoteError as error:
        complain(f"error: {error}")
        return UNREACHABLE if error.is_unreachable else TEMPORARY
    except KeyboardInterrupt:
        return 130

