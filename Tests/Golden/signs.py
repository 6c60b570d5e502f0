#!/usr/bin/env python3
"""Prints signs.json: the codes and scales of BitDelta and of per-axis signs, written from the papers with NumPy."""

import json

import numpy as np


def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def case(rows: int, columns: int, seed: int) -> dict:
    random = np.random.Generator(np.random.PCG64(seed))
    delta = (random.standard_normal((rows, columns)) / 64).astype(np.float32)
    delta[random.random((rows, columns)) < 0.2] = 0  # also what did not change has a sign
    delta[0] = 0
    delta[:, -1] = 0
    delta[:, 0] *= 8  # so that columns differ more than rows
    sizes, changed = np.abs(delta.astype(np.float64)), delta != 0
    scales = {"tensor": np.float32([sizes.mean()])}
    for name, axis in (("row", 1), ("column", 0)):
        scales[name] = bfloat16(sizes.sum(axis) / np.maximum(changed.sum(axis), 1))
    sign = np.where(delta < 0, -1, 1).astype(np.float64)
    read = {"tensor": scales["tensor"][0], "row": scales["row"][:, None], "column": scales["column"][None]}
    return {
        "shape": [rows, columns],
        "delta": [int(word) for word in delta.view(np.uint32).ravel()],
        "codes": [int(byte) for byte in np.packbits(delta.ravel() >= 0, bitorder="little")],
        "scales": {name: [int(word) for word in values.view(np.uint32)] for name, values in scales.items()},
        "errors": {name: float(((delta - sign * values) ** 2).sum()) for name, values in read.items()},
    }


print(json.dumps([case(5, 7, 1), case(3, 16, 2), case(9, 3, 3)]))
