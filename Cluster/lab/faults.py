"""The faults of the lab, and the schedule that a seed gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

# What befalls a worker's process, its link, its host's cable, the coordinator, and disks. The numbers are weights.
WORKER = {"kill": 3, "freeze": 3, "drain": 1}
ONCE = {"flip": 3, "cut": 3, "duplicate": 2, "reorder": 2, "replay": 2, "lose": 2, "reset": 2}
LINK = {"hold": 2, "hold-both": 2, "lose-all": 2, "delay": 2, "throttle": 2, "unplug": 2}
CLUSTER = {"swizzle": 1, "kill-coordinator": 4, "freeze-coordinator": 2, "unplug-coordinator": 1, "kill-all": 1}
DISKS = {"fill-output": 2, "fill-state": 1, "read-only": 1}
WEIGHTS = {**WORKER, **ONCE, **LINK, **CLUSTER, **DISKS}
ON_ONE_WORKER = {**WORKER, **ONCE, **LINK}


@dataclass(frozen=True)
class Fault:
    kind: str
    worker: int | None  # None for faults of the coordinator and of several workers
    way: str  # "up" or "down", where it matters
    seconds: float  # how long a fault lasts that has an end
    amount: float  # 0 to 1: how much of it

    def __str__(self) -> str:
        where = "" if self.worker is None else f" worker-{self.worker}"
        way = f" {self.way}" if self.kind in ONCE or self.kind in ("hold", "lose-all") else ""
        lasting = "" if self.kind in ONCE or self.kind in ("kill", "drain") else f" for {self.seconds:.1f} s"
        return f"{self.kind}{where}{way}{lasting}"


def schedule(seed: int, workers: int, kinds: list[str], every: float, longest: float) -> Iterator[tuple[float, Fault]]:
    """Pauses in seconds, each with the fault that follows. Short faults are as likely as long ones, in proportion."""
    random = Random(seed)
    while True:
        kind = random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        worker = random.randrange(workers) if kind in ON_ONE_WORKER else None
        seconds = longest ** random.uniform(-0.5, 1)
        yield random.expovariate(1 / every), Fault(kind, worker, random.choice(("up", "down")), seconds, random.random())
