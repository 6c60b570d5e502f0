"""The tables and the JSON of a benchmark."""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from contenders import Sample

TESSERA, REFERENCE, MERGEKIT, DD, DD_READ = "tessera", "reference", "mergekit", "dd", "dd-read"
PEER, CLUSTER = "torch", "workers"
NOTHING = "–"


@dataclass
class Result:
    """What became of a row."""

    name: str
    against: str | None
    threads: int  # of each contender
    skipped: str | None = None  # why
    failed: str | None = None  # how
    samples: dict[str, list[Sample]] = field(default_factory=dict)  # by contender

    def median(self, contender: str, value: str) -> float | None:
        """The median of one field of a contender's samples; None where it has none."""
        values = [getattr(sample, value) for sample in self.samples.get(contender, [])]
        return None if not values or None in values else median(values)

    def ratio(self, value: str, contender: str = TESSERA, to: str = REFERENCE) -> float | None:
        own, others = self.median(contender, value), self.median(to, value)
        return own / others if own is not None and others else None

    def method_cpu(self) -> float | None:
        """What Tessera's method takes of the processor beyond the average of the same tensors."""
        own, average = self.median(TESSERA, "cpu"), self.median(REFERENCE, "cpu")
        return own - average if own is not None and average is not None else None

    def method_ratio(self) -> float | None:
        own, torch = self.method_cpu(), self.median(PEER, "inner_cpu")
        return torch / own if own and torch is not None else None

    def spread(self) -> float | None:
        """How far Tessera's slowest run lies from its fastest, relative to the median."""
        walls = [sample.wall for sample in self.samples.get(TESSERA, [])]
        return (max(walls) - min(walls)) / median(walls) if walls else None

    def others(self) -> float | None:
        """How many processors everybody else kept busy, on average."""
        samples = [sample for contender in self.samples.values() for sample in contender]
        return sum(sample.others for sample in samples) / sum(sample.wall for sample in samples) if samples else None

    def rate(self, contender: str, value: str) -> float | None:
        """Bytes a second, written or read."""
        count, wall = self.median(contender, value), self.median(contender, "wall")
        return count / wall if count is not None and wall else None


# ---- Tables ----


def number(value: float | None, scale: float = 1, places: int = 2) -> str:
    return NOTHING if value is None else f"{value / scale:.{places}f}"


def seconds(value: float | None) -> str:
    return number(value, places=3)


def times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}×"


def mebibytes(value: float | None) -> str:
    return number(value, 1 << 20, 0)


def gigabytes(value: float | None) -> str:
    return number(value, 1e9)


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


Column = tuple[str, Callable[[Result], str]]

COMPARED: Column = ("compared with", lambda row: row.against or NOTHING)

MAIN_COLUMNS: list[Column] = [
    COMPARED,
    ("wall, s", lambda row: seconds(row.median(TESSERA, "wall"))),
    ("its wall", lambda row: seconds(row.median(REFERENCE, "wall"))),
    ("ratio", lambda row: times(row.ratio("wall"))),
    ("spread", lambda row: percent(row.spread())),
    ("others", lambda row: number(row.others(), places=1)),
    ("CPU, s", lambda row: seconds(row.median(TESSERA, "cpu"))),
    ("its CPU", lambda row: seconds(row.median(REFERENCE, "cpu"))),
    ("ratio", lambda row: times(row.ratio("cpu"))),
    ("anon, MiB", lambda row: mebibytes(row.median(TESSERA, "anonymous"))),
    ("its anon", lambda row: mebibytes(row.median(REFERENCE, "anonymous"))),
    ("max RSS, MiB", lambda row: mebibytes(row.median(TESSERA, "max_rss"))),
    ("input, GB", lambda row: gigabytes(row.median(TESSERA, "bytes_read"))),
    ("its input", lambda row: gigabytes(row.median(REFERENCE, "bytes_read"))),
    ("output, GB", lambda row: gigabytes(row.median(TESSERA, "bytes_written"))),
]


def rates(what: str, value: str, dd: str) -> list[Column]:
    return [
        COMPARED,
        (f"tessera, GB/s {what}", lambda row: gigabytes(row.rate(TESSERA, value))),
        ("its GB/s", lambda row: gigabytes(row.rate(REFERENCE, value))),
        ("dd, GB/s", lambda row: gigabytes(row.rate(dd, value))),
    ]


DISK_COLUMNS: list[Column] = rates("written", "bytes_written", DD)
COLD_COLUMNS: list[Column] = rates("read", "bytes_read", DD_READ)

MERGEKIT_COLUMNS: list[Column] = [
    ("mergekit wall, s", lambda row: seconds(row.median(MERGEKIT, "wall"))),
    ("tessera wall, s", lambda row: seconds(row.median(TESSERA, "wall"))),
    ("ratio", lambda row: times(row.ratio("wall", MERGEKIT, TESSERA))),
    ("mergekit CPU, s", lambda row: seconds(row.median(MERGEKIT, "cpu"))),
    ("mergekit anon, MiB", lambda row: mebibytes(row.median(MERGEKIT, "anonymous"))),
]


PEER_COLUMNS: list[Column] = [
    ("torch, s", lambda row: seconds(row.median(PEER, "wall"))),
    ("tessera, s", lambda row: seconds(row.median(TESSERA, "wall"))),
    ("torch CPU, s", lambda row: seconds(row.median(PEER, "cpu"))),
    ("tessera CPU, s", lambda row: seconds(row.median(TESSERA, "cpu"))),
    ("times as fast per core", lambda row: times(row.ratio("cpu", PEER, TESSERA))),
    ("torch method CPU, s", lambda row: seconds(row.median(PEER, "inner_cpu"))),
    ("tessera method CPU, s", lambda row: seconds(row.method_cpu())),
    ("times as fast per core", lambda row: times(row.method_ratio())),
    ("torch anon, MiB", lambda row: mebibytes(row.median(PEER, "anonymous"))),
    ("tessera anon, MiB", lambda row: mebibytes(row.median(TESSERA, "anonymous"))),
]


def table(results: list[Result], columns: list[Column]) -> str:
    lines = [["row"] + [title for title, _ in columns]]
    lines.append(["---"] + ["---" if column is COMPARED else "---:" for column in columns])
    for row in results:
        if row.skipped or row.failed:
            reason = f"skipped: {row.skipped}" if row.skipped else "**failed**"
            lines.append([row.name, reason] + [""] * (len(columns) - 1))
        else:
            lines.append([row.name] + [show(row) for _, show in columns])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(title: str, results: list[Result]) -> str:
    """All tables that there are numbers for."""
    sections = [title, table(results, MAIN_COLUMNS)]
    for contender, columns in (
        (DD, DISK_COLUMNS),
        (DD_READ, COLD_COLUMNS),
        (MERGEKIT, MERGEKIT_COLUMNS),
        (PEER, PEER_COLUMNS),
    ):
        measured = [row for row in results if contender in row.samples and not row.failed]
        if measured:
            sections.append(table(measured, columns))
    return "\n\n".join(sections)


# ---- JSON ----


def as_json(result: Result) -> dict:
    return {
        "name": result.name,
        "against": result.against,
        "threads": result.threads,
        "skipped": result.skipped,
        "failed": result.failed,
        "ratios": {value: result.ratio(value) for value in ("wall", "cpu", "anonymous")},
        "samples": {contender: [asdict(sample) for sample in samples] for contender, samples in result.samples.items()},
    }


def machine() -> dict:
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    facts = {name.strip(): value.strip() for name, value in lines}
    return {
        "processor": facts.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
