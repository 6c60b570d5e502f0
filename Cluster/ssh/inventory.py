"""The inventory of a cluster: a TOML file that says which hosts do what. README.md beside this file has an example."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class InventoryError(Exception):
    """What is wrong with the inventory, and where."""

    code = 65  # as tessera's for a malformed file


class NoInventory(InventoryError):
    """There is no file, or it cannot be read."""

    code = 66


@dataclass(frozen=True)
class Service:
    """A coordinator or worker on a host."""

    name: str  # unique in the cluster; a worker is called so in `tessera status`
    role: str  # coordinator or worker
    host: str  # as ssh knows it
    address: str  # of the host: a name or an IP address, which its certificate names
    directories: tuple[str, ...]  # must be on the host before the service starts
    words: tuple[str, ...]  # options of `tessera ROLE`, but for names, addresses and credentials


@dataclass(frozen=True)
class Inventory:
    name: str
    coordinator: Service
    workers: tuple[Service, ...]
    port: int
    status_port: int
    certificates: Path | None  # None for a cluster without TLS

    @property
    def services(self) -> tuple[Service, ...]:
        return (self.coordinator, *self.workers)

    @property
    def hosts(self) -> list[str]:
        """Every host once, as ssh knows it, the coordinator's first."""
        return list(dict.fromkeys(service.host for service in self.services))

    def select(self, names: list[str]) -> list[Service]:
        """The services with these names, or all of them if there are no names."""
        known = {service.name: service for service in self.services}
        if unknown := [name for name in names if name not in known]:
            raise InventoryError(f"no service is called {', '.join(unknown)}; there are {', '.join(known)}")
        return [known[name] for name in names] if names else list(self.services)


WORKER_KEYS: dict[str, type] = {"roots": list, "output_root": str, "threads": int, "memory": str, "options": list}
COORDINATOR_KEYS: dict[str, type] = {
    "host": str, "address": str, "port": int, "status_port": int, "roots": list, "output_root": str, "options": list,
}  # fmt: skip
TOP_KEYS: dict[str, type] = {
    "name": str, "certificates": str, "insecure": bool, "coordinator": dict, "workers": dict, "worker": list,
}  # fmt: skip


class Lines:
    """Where in the file tables and keys stand, as far as they are written a line each."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.numbers: dict[tuple[str, str], int] = {}
        table, workers = "", 0
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*(\[\[?)\s*([\w-]+)\s*\]", line):
                workers += header[1] == "[[" and header[2] == "worker"
                table = f"[[worker]] {workers}" if header[1] == "[[" else f"[{header[2]}]"
                self.numbers.setdefault((table, ""), number)
            elif key := re.match(r"\s*\"?([\w-]+)\"?\s*=", line):
                self.numbers.setdefault((table, key[1]), number)

    def where(self, table: str, *keys: str) -> str:
        """The file, the line of the first of the keys that the table has, else of its header, and the table."""
        line = next((self.numbers[table, key] for key in (*keys, "") if (table, key) in self.numbers), None)
        return f"{self.path}{f':{line}' if line else ''}{f': {table}' if table else ''}"


class Table:
    """A table of the file, whose keys are checked."""

    def __init__(self, values: Any, keys: dict[str, type], lines: Lines, name: str = ""):
        self.lines, self.name = lines, name
        if not isinstance(values, dict):
            raise InventoryError(f"{self.where()} must be a table")
        for key, value in values.items():
            where = self.where(key)
            if key not in keys:
                raise InventoryError(f"{where} has an unknown key '{key}'; there are {', '.join(sorted(keys))}")
            if type(value) is not keys[key]:
                raise InventoryError(f"{where}: {key} must be of type {keys[key].__name__}")
            if keys[key] is list and key != "worker" and not all(isinstance(item, str) for item in values[key]):
                raise InventoryError(f"{where}: {key} must be a list of texts")
        self.values = values

    def where(self, *keys: str) -> str:
        return self.lines.where(self.name, *keys)

    def need(self, key: str) -> Any:
        if key not in self.values:
            raise InventoryError(f"{self.where()} needs '{key}'")
        return self.values[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def directories(self, key: str) -> list[str]:
        value = self.get(key, [])
        found: list[str] = value if isinstance(value, list) else [value]
        for path in found:
            if not path.startswith("/"):
                raise InventoryError(f"{self.where(key)}: '{path}' must be an absolute path")
        return found

    def number(self, key: str, default: int, most: int) -> int:
        value: int = self.get(key, default)
        if not 1 <= value <= most:
            raise InventoryError(f"{self.where(key)}: {key} must be from 1 to {most}")
        return value

    def host(self) -> tuple[str, str]:
        """The host as ssh knows it, and its address."""
        host = self.need("host")
        # ssh must not take the name for an option, nor a remote shell for more than a word.
        if not re.fullmatch(r"(?!-)[A-Za-z0-9._@:%\[\]-]+", host):
            raise InventoryError(f"{self.where('host')}: '{host}' is no destination that ssh knows")
        address = self.get("address", host.rpartition("@")[2])
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?", address):
            where = self.where("address", "host")
            raise InventoryError(f"{where}: '{address}' is no host name and no IP address; give one as 'address'")
        return host, address


def read(path: Path) -> Inventory:
    """Reads an inventory.

    Raises `InventoryError` for what is wrong in the file, and where it cannot be read.
    """
    try:
        text = path.read_text()
        values = tomllib.loads(text)
    except FileNotFoundError as error:
        raise NoInventory(f"{path} does not exist; docs/deploy/ssh.md begins with an inventory to copy") from error
    except OSError as error:
        raise NoInventory(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InventoryError(f"{path} is not a text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*?) ?\(at (?:line (\d+), column \d+|end of document)\)", str(error))
        words, line = (found[1], found[2] or str(text.count("\n") + 1)) if found else (str(error), "1")
        raise InventoryError(f"{path}:{line}: this is no TOML: {words}") from error
    lines = Lines(path, text)
    top = Table(values, TOP_KEYS, lines)
    name = top.get("name", path.stem)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
        where = top.where("name")
        raise InventoryError(f"{where}: the name '{name}' must be of a-z, 0-9 and '-', at most 40; give one as 'name'")
    is_insecure = top.get("insecure", False)
    if is_insecure and top.get("certificates"):
        raise InventoryError(f"{top.where('insecure')}: 'insecure' and 'certificates' do not go together")
    certificates = None if is_insecure else path.parent.resolve() / top.get("certificates", f"{name}.certificates")

    table = Table(top.need("coordinator"), COORDINATOR_KEYS, lines, "[coordinator]")
    host, address = table.host()
    roots, outputs = table.directories("roots"), table.directories("output_root")
    if not roots or not outputs:
        raise InventoryError(f"{table.where()} needs 'roots' and 'output_root'")
    words = [*paired("--root", roots), *paired("--output-root", outputs), *table.get("options", [])]
    coordinator = Service("coordinator", "coordinator", host, address, (*roots, *outputs), tuple(words))
    return Inventory(
        name, coordinator, tuple(read_workers(top, lines)), table.number("port", 7070, 65535),
        table.number("status_port", 7071, 65535), certificates,
    )  # fmt: skip


def read_workers(top: Table, lines: Lines) -> list[Service]:
    defaults = Table(top.get("workers", {}), WORKER_KEYS, lines, "[workers]").values
    found: list[Service] = []
    for number, values in enumerate(top.get("worker", []), 1):
        place, keys = f"[[worker]] {number}", {**WORKER_KEYS, "host": str, "address": str, "name": str}
        own = Table(values, keys, lines, place).values
        table = Table({**defaults, **own}, keys, lines, place)
        host, address = table.host()
        name = table.get("name", address)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", name) or len(name) > 60:
            raise InventoryError(f"{table.where('name')}: '{name}' is no name of a worker; use letters, digits, '.', '_' and '-'")
        if name == "coordinator" or name in [service.name for service in found]:
            raise InventoryError(f"{table.where('name')}: two services are called '{name}'; give one of them another 'name'")
        roots, outputs = table.directories("roots"), table.directories("output_root")
        words = [*paired("--root", roots), *paired("--output-root", outputs)]
        if "threads" in table.values:
            words += ["--threads", str(table.number("threads", 1, 1024))]
        words += [*paired("--memory", [table.get("memory")] if table.get("memory") else []), *table.get("options", [])]
        found.append(Service(name, "worker", host, address, (*roots, *outputs), tuple(words)))
    if not found:
        raise InventoryError(f"{lines.path} needs a [[worker]]")
    return found


def paired(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
