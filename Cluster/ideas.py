#!/usr/bin/env python3
"""Ideas for thinned task vectors, each measured once with NumPy: what the rebuilt fine-tunes and two merges of them lose.

    ideas.py [--language DIR] [--every 8] [--bits 3] [--share 1]

Every scheme spends the same bits on each matrix of 4096 elements or more, `bits` and a quarter for one of `every` elements;
smaller tensors are exact. TIES is at a density of 0.2 and a weight of 0.5, the best for full precision on the digits. `--share 3`
scores with a third of the digits' images. One seed; a difference of less than 0.01 is none.
"""

import argparse
import zlib
from pathlib import Path
from typing import Callable

from tenths import ROOT, Digits, Family, Tensors, Text, squares

import numpy as np

LEAST = 4096
Vectors = dict[str, Tensors]  # by task


def random(name: str, task: int, salt: int = 0) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), task, salt])


def coded(kept: np.ndarray, bits: int) -> np.ndarray:
    """Codes without a zero in groups of 64, of the scale that errs least of a few."""
    padded = np.concatenate([kept, np.zeros(-len(kept) % 64)]).reshape(-1, 64)
    spread, top = np.sqrt((padded**2).mean(1, keepdims=True)) + 1e-30, 2 ** (bits - 1) - 0.5
    best, least = np.zeros_like(padded), np.full((len(padded), 1), np.inf)
    for factor in np.linspace(0.6, 2.0, 8):
        step = spread * factor * 2 / 2**bits
        tried = np.clip(np.floor(padded / step) + 0.5, -top, top) * step
        error = ((padded - tried) ** 2).sum(1, keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best.ravel()[: len(kept)]


def along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scaled so that the step along x is as long as x."""
    product = float(np.vdot(x, y))
    return y * (squares(x) / product) if product > 0 else y


def thinned(x: np.ndarray, every: int, bits: int, generator: np.random.Generator, offset: int = 0) -> np.ndarray:
    flat = x.ravel().astype(float)
    places = np.arange(0, len(flat), every)
    places = np.minimum(places + (generator.integers(0, every, len(places)) + offset) % every, len(flat) - 1)
    y = np.zeros(len(flat))
    y[places] = coded(flat[places], bits)
    return along(flat, y).reshape(x.shape)


# ---- Ideas: a matrix of one task, in as many bits ----


def own_masks(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    return thinned(x, every, bits, random(name, task))


def common_masks(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    return thinned(x, every, bits, random(name, 0))


def disjoint_masks(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    return thinned(x, every, bits, random(name, 0), offset=task)


def independent_bits(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    flat, y = x.ravel().astype(float), np.zeros(x.size)
    places = np.flatnonzero(random(name, task).random(x.size) < 1 / every)
    y[places] = coded(flat[places], bits)
    return along(flat, y).reshape(x.shape)


def rotated(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    """A Hadamard transform of blocks of 64 with random signs, before thinning and back."""
    flat = np.concatenate([x.ravel(), np.zeros(-x.size % 64)])
    h = np.ones((1, 1))
    while len(h) < 64:
        h = np.block([[h, h], [h, -h]])
    signs = random(name, task, 1).choice([-1.0, 1.0], 64)
    turned = (flat.reshape(-1, 64) * signs) @ h / 8
    back = (thinned(turned, every, bits, random(name, task)) @ h / 8) * signs
    return along(x, back.ravel()[: x.size].reshape(x.shape))


def by_rows(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    """Twice as many elements of the third of the rows with the largest norms, and half as many of the others: as many in all."""
    if x.ndim != 2 or len(x) < 3:
        return own_masks(x, name, task, every, bits)
    order, y = np.argsort(-(x.astype(float) ** 2).sum(1)), np.zeros(x.shape)
    for rows, stride in ((order[: len(x) // 3], every // 2), (order[len(x) // 3 :], every * 2)):
        y[rows] = thinned(x[rows], stride, bits, random(name, task, stride))
    return along(x, y)


def low_rank(x: np.ndarray, name: str, task: int, every: int, bits: int) -> np.ndarray:
    """A third of the bits for the first singular vectors in 8 bits, and the residual thinned with the rest."""
    if x.ndim != 2:
        return own_masks(x, name, task, every, bits)
    rank = max(1, int(x.size * (bits + 0.25) / every / 3 / (8 * sum(x.shape))))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    first = (u[:, :rank] * s[:rank]) @ v[:rank]
    return first + thinned(x - first, every * 3 // 2, bits, random(name, task))


IDEAS: dict[str, Callable[[np.ndarray, str, int, int, int], np.ndarray]] = {
    "own masks, by strata (the store's)": own_masks,
    "common masks": common_masks,
    "disjoint masks": disjoint_masks,
    "masks of independent bits": independent_bits,
    "Hadamard rotation of blocks of 64": rotated,
    "more elements of rows with large norms": by_rows,
    "low rank, and the residual thinned": low_rank,
}


def each(family: Family, idea: Callable[..., np.ndarray], every: int, bits: int) -> Vectors:
    return {
        task: {
            name: idea(x, name, number, every, bits) if x.size >= LEAST and x.any() else x
            for name, x in family.vectors[task].items()
        }
        for number, task in enumerate(family.tasks)
    }


def shared(family: Family, every: int, bits: int) -> Vectors:
    """Half of the bits for the mean of all tasks, which is stored once, and half for the offsets from it."""
    found: Vectors = {task: {} for task in family.tasks}
    stride = max(1, 2 * every // len(family.tasks))
    for name in family.base:
        vectors = [family.vectors[task][name] for task in family.tasks]
        mean = np.mean(vectors, 0)
        is_exact = mean.size < LEAST or not mean.any()
        common = mean if is_exact else thinned(mean, stride, bits, random(name, 0, 2))
        for number, (task, x) in enumerate(zip(family.tasks, vectors)):
            found[task][name] = x if is_exact else common + thinned(x - mean, 2 * every, bits, random(name, number))
    return found


def ties(family: Family, vectors: Vectors, density: float = 0.2, weight: float = 0.5) -> float:
    merged = {}
    for name, base in family.base.items():
        trimmed = []
        for task in family.tasks:
            flat = vectors[task][name].ravel()
            kept = max(1, int(density * len(flat)))
            y = np.zeros(len(flat))
            places = np.argpartition(-np.abs(flat), kept - 1)[:kept]
            y[places] = flat[places]
            trimmed.append(y)
        tasks = np.array(trimmed)
        agrees = (np.sign(tasks) == np.sign(tasks.sum(0))) & (tasks != 0)
        mean = (tasks * agrees).sum(0) / np.maximum(agrees.sum(0), 1)
        merged[name] = (base + weight * mean.reshape(base.shape)).astype(np.float32)
    return family.accuracy(merged, family.tasks)


def sum_of(family: Family, vectors: Vectors, weight: float = 0.15) -> float:
    merged = {name: base + weight * sum(vectors[task][name] for task in family.tasks) for name, base in family.base.items()}
    return family.accuracy({name: x.astype(np.float32) for name, x in merged.items()}, family.tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", type=Path, help="the language model's family in place of the digits")
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--share", type=int, default=1, help="score with one of so many of the digits' images")
    options = parser.parse_args()
    family: Family
    if options.language:
        family = Text(options.language.resolve())
    else:
        family = Digits(ROOT / "Sources/Demo/Resources/digits")
        family.test = {name: values[:: options.share] for name, values in family.test.items()}
    print(f"| one of {options.every}, {options.bits} bits | own task | TIES 0.2 | TA 0.15 |\n|---|---:|---:|---:|", flush=True)
    schemes: dict[str, Callable[[], Vectors]] = {"full precision": lambda: family.vectors}
    for name, idea in IDEAS.items():
        schemes[name] = lambda idea=idea: each(family, idea, options.every, options.bits)
    schemes["a shared vector, and offsets thinned"] = lambda: shared(family, options.every, options.bits)
    for name, make in schemes.items():
        vectors = make()
        own = float(np.mean([family.score(family.tuned(vectors[task]), task) for task in family.tasks]))
        print(f"| {name} | {own:.4f} | {ties(family, vectors):.4f} | {sum_of(family, vectors):.4f} |", flush=True)


if __name__ == "__main__":
    main()
