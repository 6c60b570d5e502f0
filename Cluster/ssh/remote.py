"""The hosts of a cluster, by ssh: what `agent.sh` does there."""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from inventory import Inventory, InventoryError, NoInventory, Service, bare, read
from owner import ANYBODY, Owner, Place

ROOT = Path(__file__).resolve().parents[2]
AGENT = Path(__file__).with_name("agent.sh").read_text()
SSH_OPTIONS = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
STOP_SECONDS = 60
SSH_FAILED = 255  # ssh's exit code where it is not the command's
# Exit codes, as tessera's: docs/deploy/ssh.md lists them.
USAGE, UNREACHABLE, CANNOT_CREATE, IO, TEMPORARY, NOT_ALLOWED = 64, 69, 73, 74, 75, 77

Item = TypeVar("Item")
Result = TypeVar("Result")


class RemoteError(Exception):
    """What went wrong on which host."""

    def __init__(self, host: str, text: str, code: int = TEMPORARY):
        super().__init__(f"{host}: {text}")
        self.host, self.text, self.code = host, text, code


@dataclass(frozen=True)
class Remote:
    """A host, and the directory of one cluster on it."""

    host: str
    cluster: str
    owner: str  # the identity of the inventory; hosts refuse others
    ssh: tuple[str, ...]  # the ssh command and its options

    def words(self, verb: str, *arguments: object) -> list[str]:
        command = ["sh", "-c", AGENT, "agent", self.cluster, self.owner, verb, *map(str, arguments)]
        return [*self.ssh, *SSH_OPTIONS, self.host, shlex.join(command)]

    def run(self, verb: str, *arguments: object, content: bytes = b"") -> str:
        """What the agent says.

        Raises `RemoteError`, with the last of what it or ssh complains about.
        """
        done = subprocess.run(self.words(verb, *arguments), input=content, capture_output=True)
        if done.returncode != 0:
            raise self.error(verb, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace").strip()

    def error(self, verb: str, code: int, complaint: str) -> RemoteError:
        """What a failed command of ssh or of the agent means."""
        if code == NOT_ALLOWED:
            return RemoteError(self.host, f"the cluster '{self.cluster}' there belongs to {complaint.strip()}", NOT_ALLOWED)
        words = re.sub(r"^error: ", "", complaint.strip(), flags=re.IGNORECASE) or f"{verb} failed with {code}"
        return RemoteError(self.host, words, UNREACHABLE if code == SSH_FAILED else TEMPORARY)


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
    credentials: tuple[str, ...] = ()  # digest and name of each file
    record: str = ""  # which services were started for the cluster
    lacks: tuple[str, ...] = ()  # directories

    @staticmethod
    def of(remote: Remote, directories: Iterable[str]) -> "Probe":
        before = time.time()
        lines = [line.partition("=") for line in remote.run("probe", *directories).splitlines()]
        middle = (before + time.time()) / 2
        values = {key: value for key, _, value in lines}

        def several(name: str) -> tuple[str, ...]:
            return tuple(value for key, _, value in lines if key == name)

        try:
            return Probe(
                values["machine"], values["directory"], int(values["memory"]), float(values["clock"]) - middle,
                values["systemd"] == "yes", values["openblas"] == "yes", several("has"), several("tls"),
                "\n".join(several("record")), several("lacks"),
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            raise RemoteError(remote.host, "does not answer as Linux with a POSIX shell does") from error


@dataclass
class Cluster:
    """The hosts of an inventory."""

    inventory: Inventory
    ssh: tuple[str, ...]
    takes_over: bool = False  # whatever inventory the cluster belonged to

    def remote(self, host: str) -> Remote:
        owner = ANYBODY if self.takes_over else Owner.of(self.inventory).identity
        return Remote(host, self.inventory.name, owner, self.ssh)

    def states(self, services: Iterable[Service]) -> dict[Service, tuple[str, str, str] | RemoteError]:
        """State, process id and executable of each service."""
        found: dict[Service, tuple[str, str, str] | RemoteError] = {}
        hosts: dict[str, list[Service]] = {}
        for service in services:
            hosts.setdefault(service.host, []).append(service)

        def ask(host: str) -> list[str]:
            return self.remote(host).run("state", *(service.name for service in hosts[host])).splitlines()

        for host, lines in self.each(hosts, ask):
            # A login shell may say more.
            answers = {} if isinstance(lines, RemoteError) else {words[0]: words for words in map(str.split, lines) if words}
            for service in hosts[host]:
                match lines if isinstance(lines, RemoteError) else answers.get(service.name, []):
                    case RemoteError() as error:
                        found[service] = error
                    case [_, state, process, executable]:
                        found[service] = (state, process, executable)
                    case _:
                        found[service] = RemoteError(host, f"does not tell the state of {service.name}")
        return found

    def each(self, items: Iterable[Item], body: Callable[[Item], Result]) -> list[tuple[Item, Result | RemoteError]]:
        """What `body` returns or raises for each item, all at the same time.

        Raises `RemoteError` if the cluster belongs to another inventory: no command goes on then.
        """

        def attempt(item: Item) -> Result | RemoteError:
            try:
                return body(item)
            except RemoteError as error:
                return error

        found = list(items)
        with ThreadPoolExecutor(max_workers=max(1, min(32, len(found)))) as pool:
            results = list(pool.map(attempt, found))
        for result in results:
            if isinstance(result, RemoteError) and result.code == NOT_ALLOWED:
                raise result
        return list(zip(found, results))

    @contextlib.contextmanager
    def forward(self, port: int) -> Iterator[int]:
        """A port of this machine that leads to one of the coordinator's host, through ssh."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            local = free.getsockname()[1]
        host = self.inventory.coordinator.host
        ways = ["-o", "ExitOnForwardFailure=yes", "-N", "-L", f"127.0.0.1:{local}:localhost:{port}"]
        command = [*self.ssh, *SSH_OPTIONS, *ways, host]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 30
            while is_free(local):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    _, complaint = process.communicate()
                    raise RemoteError(host, complaint.decode(errors="replace").strip(), UNREACHABLE)
                time.sleep(0.1)
            yield local
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def tunnel(self) -> Iterator[list[str]]:
        """The options with which a client of this machine reaches the coordinator, through ssh to its host.

        Raises `NoInventory` if the certificates are not on this machine.
        """
        folder = self.inventory.certificates
        if folder is not None and not (folder / "viewer.pem").exists():
            raise NoInventory(
                f"there is no {folder}/viewer.pem; copy it from the machine where Cluster/up was given, or let "
                f"Cluster/up {self.inventory.lines.path} make it anew with the authority's key, ca.key"
            )
        with self.forward(self.inventory.port) as port:
            yield ["--coordinator", f"localhost:{port}", *self.credentials("viewer")]

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
        return hashlib.file_digest(file, "sha256").hexdigest()


def worse(code: int, other: int) -> int:
    """Of two exit codes, the one that says more: a host that cannot be reached explains the rest."""
    return UNREACHABLE if UNREACHABLE in (code, other) else code or other


def shown(words: Iterable[object]) -> str:
    return shlex.join(map(str, words))


def stop_removed(cluster: Cluster, places: list[Place]) -> list[Place]:
    """Stops services that are no longer in the inventory. Returns those whose hosts cannot be reached now."""

    def stop(place: Place) -> str:
        try:
            return cluster.remote(place[1]).run("stop", place[0], "INT", STOP_SECONDS)
        except RemoteError as error:
            # Another inventory may have the host by now, and a cluster of the same name there.
            if error.code != NOT_ALLOWED:
                raise
            return "belongs to another inventory"

    left = []
    for (name, host), found in cluster.each(places, stop):
        if isinstance(found, RemoteError):
            complain(f"note: {name} is no longer in the inventory and may still run: {found}")
            left.append((name, host))
        else:
            say(f"{name} on {host}, no longer in the inventory: {found}")
    return left


def say(text: str) -> None:
    # One write: threads do not mix their lines.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"error: {message}\n")


def parser(text: str | None) -> argparse.ArgumentParser:
    """What all commands take: the inventory, and how to call ssh."""
    found = Parser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("inventory", type=Path, metavar="INVENTORY", help="a TOML file: docs/deploy/ssh.md")
    found.add_argument("--ssh", default="ssh", metavar="COMMAND", help="how to call ssh, such as 'ssh -F FILE'")
    return found


def add_executable(found: argparse.ArgumentParser) -> None:
    found.add_argument(
        "--tessera", type=Path, default=ROOT / ".build/tessera", metavar="FILE",
        help="the executable that Deploy/static made (default: %(default)s)",
    )  # fmt: skip


def executable(given: Path) -> Path:
    """The executable that was named, as an absolute path: a bare name would be looked up elsewhere.

    Raises `UsageError` for what is none.
    """
    path = given.resolve()
    if not path.exists():
        raise UsageError(f"there is no executable {path}; make it with Deploy/static, or name it with --tessera")
    if path.is_dir():
        raise UsageError(f"{path} is a directory; --tessera names the executable")
    if not os.access(path, os.X_OK):
        raise UsageError(f"{path} is not an executable file")
    return path


class UsageError(InventoryError):
    """What is wrong with the options of the command."""

    code = USAGE


def address_of(ssh: tuple[str, ...], host: str) -> str:
    """The name or address that ssh's own configuration has for a host, else the host's name."""
    # Without a terminal and a connection, this only reads files.
    with contextlib.suppress(OSError):
        done = subprocess.run([*ssh, "-G", host], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0 and (found := re.search(r"^hostname (\S+)$", done.stdout, re.MULTILINE)):
            return found[1]
    return bare(host)


def main(body: Callable[[Cluster, argparse.Namespace], int], options: argparse.Namespace) -> int:
    """The exit code of a command."""
    try:
        try:
            ssh = tuple(shlex.split(options.ssh))
        except ValueError as error:
            raise UsageError(f"--ssh: {error}") from error
        inventory = read(options.inventory, lambda host: address_of(ssh, host))
        if hasattr(options, "tessera"):
            options.tessera = executable(options.tessera)
        return body(Cluster(inventory, ssh, getattr(options, "take_over", False)), options)
    except InventoryError as error:
        complain(f"error: {error}")
        return error.code
    except RemoteError as error:
        complain(f"error: {error}")
        if error.code == NOT_ALLOWED:
            own = Owner.of(inventory)
            complain(
                f"This is {own.inventory} ({own.identity}). Give one of the inventories another 'name'. "
                "If it is the same cluster, bring its certificates here; if they are lost, or this inventory is to have that "
                "cluster with its workers and unfinished jobs, Cluster/up --take-over does that."
            )
        return error.code
    except OSError as error:
        complain(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
        return IO
    except KeyboardInterrupt:
        return 130
