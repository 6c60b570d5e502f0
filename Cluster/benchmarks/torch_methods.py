#!/usr/bin/env python3
"""Times methods on whole matrices as their papers' code computes them, in PyTorch and float32, on the matrices of a family.

Prints one line of JSON: the seconds that the method took for all matrices of the layers, by the clock and by the processor.
Reading the checkpoints is not in them. Descents take the same time in every step: a few are measured and stand for all.

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

    def matrices(self, layers: int | None) -> list[str]:
        def wanted(name: str) -> bool:
            found = re.search(r"\.layers\.(\d+)\.", name)
            return bool(found) and (layers is None or int(found[1]) < layers) and len(self.entries[name][2]) == 2

        return sorted(filter(wanted, self.entries))


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
    begin = time.perf_counter(), time.process_time()
    scales = [0.07 / vector.norm() for vector in vectors]
    stack = torch.cat(
        [torch.linalg.svd(vector, full_matrices=False)[0][:, : rank // len(vectors)] for vector in vectors], 1
    )
    basis = torch.linalg.svd(stack, full_matrices=False)[0][:, : rank // 6]
    projector = basis @ basis.T
    once = time.perf_counter() - begin[0], time.process_time() - begin[1]
    total = sum(scales)
    summed = sum(scale * vector for scale, vector in zip(scales, vectors))

    def loss(change):
        return sum((vector * (vector - summed - total * change)).sum(1).square().sum() for vector in vectors)

    change, factor = descend(
        torch.zeros_like(vectors[0]), loss, 1e-4, 400, lambda gradient: gradient - projector @ gradient
    )
    return sum(scale * (vector + change) for scale, vector in zip(scales, vectors)), factor, once


METHODS = {"tsv": tsv, "iso_c": iso_c, "wudi": wudi, "doge": doge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("family", type=Path, help="a directory with base and tune-0, tune-1, ...")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = Checkpoint(options.family / "base")
    tunes = [Checkpoint(path) for path in sorted(options.family.glob("tune-*"))]
    wall = cpu = 0.0
    names = base.matrices(options.layers)
    for name in names:
        origin = base.load(name)
        vectors = [tune.load(name) - origin for tune in tunes]
        begin = time.perf_counter(), time.process_time()
        _, factor, *rest = METHODS[options.method](vectors)
        spent = time.perf_counter() - begin[0], time.process_time() - begin[1]
        once = rest[0] if rest else (0, 0)
        wall += once[0] + (spent[0] - once[0]) * factor
        cpu += once[1] + (spent[1] - once[1]) * factor
    print(json.dumps({"seconds": wall, "cpu": cpu, "matrices": len(names)}))


if __name__ == "__main__":
    main()
