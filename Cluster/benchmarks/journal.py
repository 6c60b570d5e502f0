#!/usr/bin/env python3
"""What a journal costs: a ties merge by a coordinator and a worker on this machine, with --state and without, in turns.

Inputs and outputs lie in memory, the journal on disk, so that its syncs are not hidden behind those of the output.

    nice Cluster/benchmarks/journal.py [--tessera .build/release/tessera] [--runs 15] [--state /var/tmp]
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

LAYERS, LAYER_BYTES = 24, 8 << 20
RECIPE = "merge_method: ties\nbase_model: a\nmodels: [{model: b}, {model: c}]\nparameters: {weight: 1, density: 0.5}\n"


def write_family(place: Path) -> None:
    for model in "abc":
        (place / model).mkdir()
        entries = {
            f"layers.{layer}.w": {
                "dtype": "BF16",
                "shape": [LAYER_BYTES // 2],
                "data_offsets": [layer * LAYER_BYTES, (layer + 1) * LAYER_BYTES],
            }
            for layer in range(LAYERS)
        }
        header = json.dumps(entries).encode()
        # Small numbers: the high byte of each is that of an exponent below 64.
        page = bytes(byte & 0x3F if index & 1 else byte for index, byte in enumerate(os.urandom(1 << 16)))
        with open(place / model / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for _ in range(LAYERS * LAYER_BYTES // len(page)):
                file.write(page)
    (place / "r.yml").write_text(RECIPE)


def busy(process: subprocess.Popen) -> float:
    """Seconds of processors."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def merge(tessera: str, place: Path, state: Path | None) -> tuple[float, float]:
    """Seconds of the job, and of the coordinator's processor."""
    command = [tessera, "coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"]
    command += ["--state", str(state)] if state else []
    quiet = {"stderr": subprocess.DEVNULL, "text": True}
    coordinator = subprocess.Popen(command, stdout=subprocess.PIPE, **quiet)
    address = re.search(r"jobs on (\S+),", coordinator.stdout.readline()).group(1)
    worker = subprocess.Popen([tessera, "worker", "--coordinator", address, "--threads", "2", "--blocks", "direct"], **quiet)
    try:
        time.sleep(0.5)
        before = busy(coordinator)
        command = [tessera, "submit", "r.yml", "out", "--wait", "--json", "--coordinator", address, "--shard-size", "8MB"]
        job = json.loads(subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout)
        return job["seconds"], busy(coordinator) - before
    finally:
        for process in (coordinator, worker):
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(place / "out", ignore_errors=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tessera", default=".build/release/tessera")
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--state", type=Path, default=Path("/var/tmp"))
    arguments = options.parse_args()
    tessera = str(Path(arguments.tessera).resolve())
    samples: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, tempfile.TemporaryDirectory(dir=arguments.state) as kept:
        write_family(Path(name))
        for run in range(arguments.runs + 1):
            for journal in (True, False) if run % 2 else (False, True):
                sample = merge(tessera, Path(name), Path(kept) / str(run) if journal else None)
                # The first of each warms up.
                if run:
                    samples[journal].append(sample)
    for journal, taken in samples.items():
        seconds, processor = (statistics.median(sample[index] for sample in taken) for index in range(2))
        print(f"{'with' if journal else 'without'} a journal: {seconds:.3f} s, coordinator {processor:.2f} s of one processor")


if __name__ == "__main__":
    main()
