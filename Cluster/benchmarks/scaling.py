"""What more threads and more workers bring, and where they stop to bring it."""

from itertools import pairwise

from report import CLUSTER, REFERENCE, TESSERA, Result, gigabytes, times

# Twice the threads that bring less than this are said to bend the curve.
STRAIGHT = 1.5
CURVES = {TESSERA: "tessera", REFERENCE: "plain C", CLUSTER: "workers of one thread"}


def steps(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    powers = [1 << exponent for exponent in range(most.bit_length())]
    return powers if powers[-1] == most else [*powers, most]


def throughput(result: Result, contender: str) -> float | None:
    """Bytes a second, read and written."""
    rates = [result.rate(contender, value) for value in ("bytes_read", "bytes_written")]
    return None if None in rates else sum(rates)


def tables(results: list[Result]) -> list[str]:
    """A table for each row of the benchmark, and where its curves bend."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.name, []).append(result)
    return [part for name, curve in rows.items() for part in (table(name, curve), bends(name, curve))]


def table(name: str, curve: list[Result]) -> str:
    lines = [[f"{name}, threads"], ["---:"]]
    for title in CURVES.values():
        lines[0] += [f"{title}, GB/s", "of one"]
        lines[1] += ["---:", "---:"]
    for result in curve:
        line = [str(result.threads)]
        for contender in CURVES:
            own, first = throughput(result, contender), throughput(curve[0], contender)
            line += [gigabytes(own), times(own / first if own and first else None)]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bends(name: str, curve: list[Result]) -> str:
    found = []
    for contender, title in CURVES.items():
        for before, after in pairwise(curve):
            slower, faster = throughput(before, contender), throughput(after, contender)
            if slower and faster and faster / slower < STRAIGHT ** (after.threads / before.threads - 1):
                found.append(f"{title} at {after.threads} ({faster / slower:.2f} times {before.threads})")
                break
    return f"{name} bends: {', '.join(found)}" if found else f"{name} bends nowhere up to {curve[-1].threads}"
