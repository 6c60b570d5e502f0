"""The published compressors that no store has a form for, in NumPy, after their papers and releases.

Each takes a model's task vector by tensors and gives it as it would be read, with its bits. They encode the weights of linear
layers; what they leave out is read as it is, and not counted: the bits are those of the encoded tensors, per parameter of these.
Scales take 16 bits. Positions of kept entries take their entropy.
"""

import math
from typing import Callable

import numpy as np

Tensors = dict[str, np.ndarray]
Compressor = Callable[[Tensors], tuple[Tensors, float]]


def selected(name: str, x: np.ndarray) -> bool:
    """The weights of linear layers."""
    return x.ndim == 2 and "layer" in name


def each(compress: Callable[[np.ndarray], tuple[np.ndarray, float]]) -> Compressor:
    def apply(vector: Tensors) -> tuple[Tensors, float]:
        coded = {name: compress(x) for name, x in vector.items() if selected(name, x)}
        bits = sum(used for _, used in coded.values()) / sum(vector[name].size for name in coded)
        return {name: coded[name][0] if name in coded else x for name, x in vector.items()}, bits

    return apply


def qrelo(ratio: float) -> Callable[[np.ndarray], tuple[np.ndarray, float]]:
    """D-QReLO (arXiv 2604.16940): one bit, then a low rank of what that leaves. `ratio` is of 16 bits, both together."""

    def compress(x: np.ndarray) -> tuple[np.ndarray, float]:
        sign = np.abs(x).mean() * np.sign(x)
        u, s, v = np.linalg.svd(x - sign, full_matrices=False)
        n, m = x.shape
        rank = min(len(s), math.ceil(n * m * (ratio - 1 / 16) / (n + m)))
        return sign + (u[:, :rank] * s[:rank]) @ v[:rank], x.size + 16 + 16 * (rank * (n + m) + rank)

    return compress


def ultradelta(drop: float, spread: float = 0.01, bits: int = 4) -> Compressor:
    """arXiv 2505.13563: codes, and drop rates by the tensors' spread."""

    def apply(vector: Tensors) -> tuple[Tensors, float]:
        random, top = np.random.default_rng(0), 2**bits - 1
        coded, found, total = {}, dict(vector), 0.0
        for name, x in vector.items():
            if selected(name, x):
                low, width = x.min(), x.max() - x.min()
                coded[name] = np.round((x - low) / width * top) / top * width + low
        order = sorted(coded, key=lambda name: coded[name].std())
        size, running, classes = sum(coded[name].size for name in order), 0, {}
        for name in order:
            running += coded[name].size
            classes[name] = 0 if running <= size / 3 else 1 if running <= 2 * size / 3 else 2
        sizes = [sum(coded[n].size for n in order if classes[n] == c) for c in range(3)]
        last = (drop * size - drop * sizes[1] - (drop + spread) * sizes[0]) / sizes[2] if sizes[2] else drop
        rates = (drop + spread, drop, min(max(last, 0), 0.99))
        for name, x in coded.items():
            rate, y, flat = rates[classes[name]], x.ravel() / (1 - drop), x.ravel()
            for value in np.unique(flat):
                places = np.flatnonzero(flat == value)
                y[random.permutation(places)[: round(len(places) * rate)]] = 0
            kept = np.count_nonzero(y) / y.size
            entropy = -kept * math.log2(kept) - (1 - kept) * math.log2(1 - kept) if 0 < kept < 1 else 0
            found[name] = y.reshape(x.shape)
            total += y.size * (kept * bits + entropy) + 64
        return found, total / size

    return apply


PUBLISHED: dict[str, tuple[str, Compressor]] = {
    **{f"D-QReLO, {r} of 16 bits": ("D-QReLO", each(qrelo(r))) for r in (0.08, 0.1, 0.125, 0.1875)},
    **{f"UltraDelta, drop {p}": ("UltraDelta", ultradelta(p)) for p in (0.8, 0.9, 0.97)},
}
