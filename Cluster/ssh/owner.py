"""To which inventory a cluster on hosts belongs, and which services were started for it.

Each host of a cluster keeps a record of it, `cluster` in the directory of the cluster. agent.sh does nothing there for another
inventory, which may have the same name by chance.
"""

import getpass
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from inventory import Inventory, is_destination, is_worker_name

Place = tuple[str, str]  # the name of a service, and its host as ssh knows it
ANYBODY = "anybody"  # the identity of a command that takes a cluster over


@dataclass(frozen=True)
class Owner:
    """An inventory, as hosts remember it."""

    identity: str
    inventory: str  # for people: where the inventory lies

    @staticmethod
    def of(inventory: Inventory) -> "Owner":
        """With TLS, the authority makes the cluster: whoever has its key may go on with it, from any machine. Without TLS, the
        inventory's own path does."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user may have no name
            user = str(os.getuid())
        place = f"{user}@{os.uname().nodename}:{inventory.lines.path.resolve()}"
        if inventory.certificates is None:
            return Owner(f"without TLS, {place}", place)
        authority = inventory.certificates / "ca.pem"
        if not authority.exists():
            return Owner(f"without an authority: there is no {authority}", place)
        return Owner(f"authority {hashlib.sha256(authority.read_bytes()).hexdigest()[:16]}", place)

    def record(self, places: Iterable[Place]) -> str:
        """What a host keeps: agent.sh reads the first two lines."""
        services = "".join(f"service {name} {host}\n" for name, host in places)
        return f"identity {self.identity}\ninventory {self.inventory}\n{services}"


def places_of(inventory: Inventory) -> list[Place]:
    return [(service.name, service.host) for service in inventory.services]


def recorded(records: Iterable[str]) -> list[Place]:
    """The services that the records of hosts name. What hosts say is not trusted: it becomes words of commands."""
    found: dict[Place, None] = {}
    for line in "\n".join(records).splitlines():
        match line.split():
            case ["service", name, host] if is_worker_name(name) and is_destination(host):
                found[name, host] = None
    return list(found)


def removed(inventory: Inventory, before: Iterable[Place]) -> list[Place]:
    """Services that were started for the cluster and are no longer in its inventory."""
    return [place for place in before if place not in places_of(inventory)]
