#!/usr/bin/env python3
"""Times methods on whole matrices as their papers' code computes them, in PyTorch and float32, on the matrices of a family.

Prints one line of JSON: the seconds that the method took for all matrices of the layers, by the clock and by the processor, and
the seconds of all that a merge is: with the files read, task vectors taken, all other tensors averaged, results rounded and
written. The start of Python and PyTorch is in neither. Descents take the same time in every step: a few are measured and stand
for all.

The formulas are TSV-Merge (arXiv 2412.00081), Iso-C (2502.04959), WUDI (2503.08099) and DOGE (2501.01230).
"""

import argparse
import json
import re
import struct
import time
from pathlib import Path

import torch

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
MEASURED_STEPS = 2
LAYER = re.compile(r"\.layers\.(\d+)\.")


class Checkpoint:
    """The tensors of one safetensors file or of several, mapped."""

    def __init__(self, directory: Path):
        self.entries = {}
        for path in sorted(directory.glob("*.safetensors")):
            with open(path, "rb") as file:
                size = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(size))
            for name, entry in header.items():
                if name != "__metadata__":
                    self.entries[name] = (path, 8 + size + entry["data_offsets"][0], entry["shape"], entry["dtype"])

    def load(self, name: str) -> torch.Tensor:
        path, offset, shape, dtype = self.entries[name]
        count = 1
        for length in shape:
            count *= length
        with open(path, "rb") as file:
            file.seek(offset)
            raw = bytearray(file.read(count * TYPES[dtype].itemsize))
        return torch.frombuffer(raw, dtype=TYPES[dtype]).reshape(shape).to(torch.float32)

    def names(self, layers: int | None) -> list[str]:
        """Of the tensors outside the layers, and of the first so many layers."""

        def wanted(name: str) -> bool:
            found = LAYER.search(name)
            return not found or layers is None or int(found[1]) < layers

        return sorted(filter(wanted, self.entries))

    def is_matrix(self, name: str) -> bool:
        return bool(LAYER.search(name)) and len(self.entries[name][2]) == 2


# ---- Methods: the update of one matrix, and how much longer all of it takes than what was computed ----


def tsv(vectors):
    share = min(vectors[0].shape) // len(vectors)
    lefts, values, rights = [], [], []
    for vector in vectors:
        u, s, v = torch.linalg.svd(vector, full_matrices=False)
        lefts.append(u[:, :share])
        values.append(s[:share])
        rights.append(v[:share])
    ul, _, vl = torch.linalg.svd(torch.cat(lefts, 1), full_matrices=False)
    ur, _, vr = torch.linalg.svd(torch.cat(rights, 0), full_matrices=False)
    return torch.linalg.multi_dot((ul, vl, torch.diag(torch.cat(values)), ur, vr)), 1


def iso_c(vectors):
    u, s, v = torch.linalg.svd(sum(vectors), full_matrices=False)
    return torch.linalg.multi_dot((u, torch.diag(torch.full_like(s, s.mean())), v)), 1


def descend(values, loss, rate, steps, project=None):
    values.requires_grad_(True)
    adam = torch.optim.Adam([values], lr=rate)
    for _ in range(MEASURED_STEPS):
        adam.zero_grad()
        loss(values).backward()
        if project:
            values.grad = project(values.grad)
        adam.step()
    return values.detach(), steps / MEASURED_STEPS


def wudi(vectors):
    norms = [vector.square().sum() for vector in vectors]

    def loss(update):
        products = ((update - vector) @ vector.T for vector in vectors)
        return sum(product.square().sum() / norm for product, norm in zip(products, norms))

    return descend(sum(vectors), loss, 1e-5, 300)


def doge(vectors):
    rank = min(vectors[0].shape)
    begin = now()
    scales = [0.07 / vector.norm() for vector in vectors]
    stack = torch.cat(
        [torch.linalg.svd(vector, full_matrices=False)[0][:, : rank // len(vectors)] for vector in vectors], 1
    )
    basis = torch.linalg.svd(stack, full_matrices=False)[0][:, : rank // 6]
    projector = basis @ basis.T
    once = since(begin)
    total = sum(scales)
    summed = sum(scale * vector for scale, vector in zip(scales, vectors))

    def loss(change):
        return sum((vector * (vector - summed - total * change)).sum(1).square().sum() for vector in vectors)

    change, factor = descend(
        torch.zeros_like(vectors[0]), loss, 1e-4, 400, lambda gradient: gradient - projector @ gradient
    )
    return sum(scale * (vector + change) for scale, vector in zip(scales, vectors)), factor, once


METHODS = {"tsv": tsv, "iso_c": iso_c, "wudi": wudi, "doge": doge}


class Stopwatch:
    """Seconds by the clock and by the processor."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def add(self, seconds: tuple[float, float], times: float = 1) -> None:
        self.wall += seconds[0] * times
        self.cpu += seconds[1] * times


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def merge_matrix(method, vectors, alone: Stopwatch) -> torch.Tensor:
    begin = now()
    update, factor, *rest = method(vectors)
    spent, once = since(begin), rest[0] if rest else (0.0, 0.0)
    alone.add(once)
    alone.add((spent[0] - once[0], spent[1] - once[1]), factor)
    return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("family", type=Path, help="a directory with base and tune-0, tune-1, ...")
    parser.add_argument("out", type=Path, help="the file for the merged tensors, one after the other")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = Checkpoint(options.family / "base")
    tunes = [Checkpoint(path) for path in sorted(options.family.glob("tune-*"))]
    method, alone, rest, matrices = METHODS[options.method], Stopwatch(), Stopwatch(), 0
    with open(options.out, "wb") as out:
        for name in base.names(options.layers):
            begin = now()
            origin = base.load(name)
            if base.is_matrix(name):
                vectors = [tune.load(name) - origin for tune in tunes]
                rest.add(since(begin))
                update = merge_matrix(method, vectors, alone)
                matrices += 1
                begin = now()
            else:
                update = torch.zeros_like(origin)
                for tune in tunes:
                    update += tune.load(name).sub_(origin)
                update /= len(tunes)
            merged = (origin + update).to(torch.bfloat16)
            out.write(merged.view(torch.uint8).numpy() if merged.dim() else merged.reshape(1).view(torch.uint8).numpy())
            rest.add(since(begin))
    document = {"seconds": alone.wall, "cpu": alone.cpu, "matrices": matrices}
    print(json.dumps(document | {"whole_seconds": alone.wall + rest.wall, "whole_cpu": alone.cpu + rest.cpu}))


if __name__ == "__main__":
    main()
