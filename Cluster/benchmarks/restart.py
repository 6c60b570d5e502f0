#!/usr/bin/env python3
"""How long a coordinator takes from its start to its open port when its journal holds many committed shards.

A job of so many shards of one tensor each is submitted and the coordinator killed. The results of all shards but the last
ones are written into the journal as the coordinator would have written them, and the same command starts it again.

    Cluster/benchmarks/restart.py [--tessera .build/release/tessera] [--shards 100000] [--runs 3]
"""

import argparse
import json
import os
import re
import signal
import sqlite3
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

LEFT = 10  # shards that are not committed
BLOCKS = 1


def write_model(directory: Path, tensors: int) -> None:
    directory.mkdir()
    header = {
        f"model.layers.{number}.w": {"dtype": "F32", "shape": [4], "data_offsets": [16 * number, 16 * number + 16]}
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 16 * tensors)


def start(tessera: str, state: Path) -> tuple[subprocess.Popen, tuple[float, float], str]:
    """The coordinator, seconds until its ports were open and seconds of processors, and the address of its job port."""
    begun = time.monotonic()
    command = [tessera, "coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--state", str(state)]
    coordinator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = coordinator.stdout.readline()
    found = re.search(r"jobs on (\S+),", line)
    if not found:
        raise SystemExit(f"the coordinator does not start: {line}")
    wall = time.monotonic() - begun
    fields = Path(f"/proc/{coordinator.pid}/stat").read_text().rpartition(")")[2].split()
    return coordinator, (wall, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")), found.group(1)


def stop(coordinator: subprocess.Popen) -> None:
    coordinator.send_signal(signal.SIGKILL)
    coordinator.wait()


def commit(state: Path, shards: int) -> None:
    """Writes results as `ResultCoding` does: for each output the number of its blocks and their digests."""
    database = sqlite3.connect(state / "journal.sqlite")
    (job,) = database.execute("SELECT number FROM job WHERE status IS NULL").fetchone()
    result = struct.pack("<II", 1, BLOCKS) + bytes(32 * BLOCKS)
    rows = ((job, number, 1, 1, "worker", "direct", result) for number in range(shards - LEFT))
    database.executemany("INSERT INTO shard VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tessera", default=".build/release/tessera")
    options.add_argument("--shards", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=3)
    arguments = options.parse_args()
    tessera = str(Path(arguments.tessera).resolve())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for model in "ab":
            write_model(place / model, arguments.shards)
        (place / "r.yml").write_text("merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 0.5}\n")
        coordinator, empty, address = start(tessera, place / "state")
        command = [tessera, "submit", "r.yml", "out", "--coordinator", address, "--shard-size", "1B"]
        begun = time.monotonic()
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        print(f"planned in {time.monotonic() - begun:.2f} s; a start without jobs takes {empty[0]:.2f} s")
        stop(coordinator)
        commit(place / "state", arguments.shards)
        seconds = []
        for _ in range(arguments.runs):
            coordinator, taken, address = start(tessera, place / "state")
            seconds.append(taken)
            stop(coordinator)
        wall, busy = (statistics.median(taken[index] for taken in seconds) for index in range(2))
        print(f"{arguments.shards - LEFT} committed shards: ready in {wall:.2f} s, {busy:.2f} s of one processor (of {seconds})")


if __name__ == "__main__":
    main()
