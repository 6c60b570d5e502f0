#!/usr/bin/env python3
"""Read stores of task vectors, as docs/task-vectors.md describes them. Needs NumPy only.

As a module:

    store = Store("store")                         # store.tasks names the fine-tunes
    tau = store.vector("math", "model.norm.weight")   # a task vector, as float32
    tensors = read_checkpoint("base")
    store.rebuild("math", tensors)                 # replaces the base's tensors by those of the fine-tune
    write_safetensors("math.safetensors", tensors)

As a program:

    read_task_vectors.py STORE TASK BASE... OUT.safetensors

BASE is a checkpoint's directory or its safetensors files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
PathLike = Union[str, Path]

NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "u1"}
"""The types that NumPy has. It has neither bfloat16 nor float8."""
ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a safetensors file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def numbers(self) -> npt.NDArray[Any]:
        """The elements, flat: of bfloat16 and float8 tensors as float32, of others in their own type."""
        if self.dtype == "BF16":  # the upper half of a float32
            return (np.frombuffer(self.data, "<u2").astype(np.uint32) << 16).view(np.float32)
        if self.dtype in FLOAT8:
            return _float8_values(self.dtype)[np.frombuffer(self.data, np.uint8)]
        if self.dtype not in NUMPY_TYPES:
            raise ValueError(f"a tensor of type {self.dtype} has no numbers that this module can read")
        return np.frombuffer(self.data, NUMPY_TYPES[self.dtype])

    @classmethod
    def of(cls, values: Floats, dtype: str, shape: Iterable[int]) -> Tensor:
        """Rounds float32 numbers to a type: to the nearest, ties to even."""
        if dtype == "BF16":
            bits = values.view(np.uint32)
            rounded = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype("<u2")
            data = np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()
        elif dtype in FLOAT8:
            data = _float8_codes(values, dtype).tobytes()
        else:
            data = values.astype(NUMPY_TYPES[dtype]).tobytes()
        return cls(dtype, tuple(shape), data)


# ---- float8 ----


@dataclass(frozen=True)
class _Float8:
    """PyTorch's float8_e4m3fn and float8_e5m2: a sign, an exponent and a mantissa."""

    mantissa_bits: int
    bias: int
    largest: int
    """The code of the largest number. The next code would be the number after it: NaN in e4m3, infinity in e5m2."""


FLOAT8 = {"F8_E4M3": _Float8(3, 7, 0x7E), "F8_E5M2": _Float8(2, 15, 0x7B)}


def _magnitudes(kind: _Float8) -> npt.NDArray[np.float64]:
    """What the codes 0 to 127 stand for, as if all of them were numbers."""
    codes = np.arange(128)
    exponent, mantissa = codes >> kind.mantissa_bits, (codes & (1 << kind.mantissa_bits) - 1) / (1 << kind.mantissa_bits)
    values: npt.NDArray[np.float64] = np.ldexp(
        np.where(exponent == 0, mantissa, 1 + mantissa), np.maximum(exponent, 1) - kind.bias
    )
    return values


@cache
def _float8_values(dtype: str) -> Floats:
    kind = FLOAT8[dtype]
    values = _magnitudes(kind).astype(np.float32)
    values[kind.largest + 1 :] = np.nan
    if dtype == "F8_E5M2":
        values[kind.largest + 1] = np.inf
    return np.concatenate([values, -values])


def _float8_codes(values: Floats, dtype: str) -> Codes:
    kind = FLOAT8[dtype]
    numbers = _magnitudes(kind)[: kind.largest + 2]
    middles = (numbers[:-1] + numbers[1:]) / 2  # exact in float64
    size = np.abs(values).astype(np.float64)
    below, above = np.searchsorted(middles, size, "left"), np.searchsorted(middles, size, "right")
    codes = np.where(below % 2 == 0, below, above).astype(np.uint8)  # they differ in the middle of two numbers
    codes |= np.signbit(values).astype(np.uint8) << 7
    return np.where(np.isnan(values), np.uint8(0x7F), codes)


# ---- Files ----


def read_safetensors(path: PathLike) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    data = Path(path).read_bytes()
    start = 8 + int(struct.unpack("<Q", data[:8])[0])
    header: dict[str, Any] = json.loads(data[8:start])
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), data[start + first : start + last])
    return tensors


def read_checkpoint(*paths: PathLike) -> dict[str, Tensor]:
    """The tensors of safetensors files, and of those in directories."""
    tensors: dict[str, Tensor] = {}
    for path in map(Path, paths):
        for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
            tensors |= read_safetensors(file)
    return tensors


def write_safetensors(path: PathLike, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors into a file, in their order."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        offsets = [end, end + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(tensor.data for tensor in tensors.values())


# ---- Task vectors ----


def unpack_codes(stream: bytes, bits: int, count: int) -> Codes:
    """Code i stands in the bits i·b to (i+1)·b of the bytes, the lowest bit first."""
    found = np.unpackbits(np.frombuffer(stream, np.uint8), count=count * bits, bitorder="little")
    codes: Codes = (found.reshape(count, bits) << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)
    return codes


def decode(form: Mapping[str, Any], shape: tuple[int, ...], name: str, files: Mapping[str, Tensor]) -> Floats:
    """A vector in one of the forms `dense` and `sparse`, flat.

    `files` holds the store's tensors, which are called as `name` and what they are: `name.codes`.
    """
    count = math.prod(shape)
    where = np.arange(count)  # the element that each stored number belongs to
    if form["form"] == "sparse":
        where = np.flatnonzero(unpack_codes(files[f"{name}.mask"].data, 1, count))
    if "dtype" in form:
        found = files[f"{name}.values"].numbers()[: len(where)].astype(np.float32)
    else:
        found = _on_grid(form, shape, where, name, files)
    result = np.zeros(count, np.float32)
    result[where] = found
    return result


def _on_grid(
    form: Mapping[str, Any], shape: tuple[int, ...], where: npt.NDArray[np.intp], name: str, files: Mapping[str, Tensor]
) -> Floats:
    """(code − zero) · scale, with the scale, and perhaps the zero, of the element's group."""
    bits: int = form["bits"]
    group: str | int = form["group"]
    code = unpack_codes(files[f"{name}.codes"].data, bits, len(where)).astype(np.float32)
    length = math.prod(shape) if group == "tensor" else shape[-1] if group == "row" and shape else group
    own = where // max(1, length if isinstance(length, int) else 1)
    scale = files[f"{name}.steps"].numbers()[own].astype(np.float32)
    if isinstance(group, int):
        zero = np.full(len(where), 0.5 if bits == 1 else 2.0 ** (bits - 1))
    else:
        zero = files[f"{name}.zeros"].numbers()[own].astype(np.float64)
    if np.all(np.abs(zero) < 2**20):
        values: Floats = (code - zero.astype(np.float32)) * scale
        return values
    wide: Floats = ((code - zero) * scale.astype(np.float64)).astype(np.float32)
    return wide


# ---- Thinned vectors ----


def random_words(key: int, count: int) -> npt.NDArray[np.uint32]:
    """Philox4x32-10: the word e % 32 / 8 of the counter (e / 32 * 8 + e % 8, 0, 0, 0) is that of element e."""
    multipliers, increments = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
    low = 0xFFFFFFFF
    block = np.arange(-(-count // 32) * 8, dtype=np.uint64)
    counter, keys = [block & low, block >> 32, block * 0, block * 0], [key & low, key >> 32]
    for _ in range(10):
        first, second = counter[0] * multipliers[0], counter[2] * multipliers[1]
        counter = [second >> 32 ^ counter[1] ^ keys[0], second & low, first >> 32 ^ counter[3] ^ keys[1], first & low]
        keys = [(word + step) & low for word, step in zip(keys, increments)]
    return np.stack(counter, 1).reshape(-1, 8, 4).transpose(0, 2, 1).ravel()[:count].astype("<u4")


def decode_thinned(
    form: Mapping[str, Any], shape: tuple[int, ...], name: str, files: Mapping[str, Tensor], key: int
) -> Floats:
    """A vector of which one of `every` consecutive elements is kept: a byte of the random words says which."""
    count = math.prod(shape)
    bits, every = int(form["bits"]), int(form["every"])
    start = np.arange(0, count, every)
    byte = random_words(key, -(-len(start) // 4)).view(np.uint8)[: len(start)].astype(np.int64)
    step = files[f"{name}.steps"].numbers()[np.arange(len(start)) // int(form["group"])]
    code = unpack_codes(files[f"{name}.codes"].data, bits, len(start))
    result = np.zeros(count, np.float32)
    result[start + (byte * np.minimum(every, count - start) >> 8)] = (code - np.float32((2**bits - 1) / 2)) * step
    return result


def decode_signs(form: Mapping[str, Any], shape: tuple[int, ...], name: str, files: Mapping[str, Tensor]) -> Floats:
    """+s where the bit is set and −s elsewhere, with a scale s of the tensor, of each row or of each column."""
    bits = unpack_codes(files[f"{name}.codes"].data, 1, math.prod(shape))
    scale = files[f"{name}.steps"].numbers()
    width = shape[-1] if shape else 1
    element = np.arange(len(bits))
    own = {"tensor": element * 0, "row": element // width, "column": element % width}[form["scale"]]
    signed: Floats = np.where(bits != 0, scale[own], -scale[own]).astype(np.float32)
    return signed


class Store:
    """A directory that `tessera run` wrote by a recipe with `quantize` or `sparsify`."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._index: dict[str, Any] = json.loads((self.path / "task-vectors.json").read_text())
        if self._index.get("format") != "tessera.task-vectors" or self._index.get("version") not in (1, 2):
            raise ValueError(f"{self.path} holds no store of task vectors in version 1 or 2 of the format")
        self._tensors = {tensor["name"]: number for number, tensor in enumerate(self._index["tensors"])}
        self._files: dict[str, dict[str, Tensor]] = {}

    @property
    def tasks(self) -> list[str]:
        """The names of the fine-tunes."""
        return [task["name"] for task in self._index["tasks"]]

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the base's tensors, by their names."""
        return {tensor["name"]: tuple(tensor["shape"]) for tensor in self._index["tensors"]}

    def vector(self, task: str, name: str) -> Floats | None:
        """The task vector of a tensor, flat and with the task's factor; `None` where the tensor is the base's."""
        owner = self._task(task)
        forms = [self._form(part, name) for part in (owner, self._index.get("shared"))]
        files = [self._read(part) for part in (owner, self._index.get("shared"))]
        found: list[Floats] = []
        for form, tensors in zip(forms, files):
            if form and form["form"] == "thinned":
                key = self._key(owner, name)
                found.append(decode_thinned(form, self.tensors[name], name, tensors, key))
            elif form and form["form"] == "signs":
                found.append(decode_signs(form, self.tensors[name], name, tensors))
            elif form and form["form"] not in ("zero", "mask"):
                found.append(decode(form, self.tensors[name], name, tensors))
        if not found:
            return None
        vector = found[0] if len(found) == 1 else found[0] + found[1]
        if forms[0] and forms[0]["form"] == "mask":
            bits = unpack_codes(files[0][f"{name}.mask"].data, 1, len(vector))
            vector = np.where(bits != 0, vector, np.float32(0))
        factor = np.float32(owner["factor"])
        return vector if factor == 1 else vector * factor

    def rebuild(self, task: str, base: dict[str, Tensor]) -> None:
        """Replaces each tensor of the base by the fine-tune's, in the base's type."""
        for name in self._tensors:
            vector = self.vector(task, name)
            if vector is not None:
                values = base[name].numbers().astype(np.float32) + vector
                base[name] = Tensor.of(values, base[name].dtype, base[name].shape)

    def _task(self, name: str) -> dict[str, Any]:
        for task in self._index["tasks"]:
            if task["name"] == name:
                return dict(task)
        raise KeyError(f"the store has no task {name}; it has {', '.join(self.tasks)}")

    def _key(self, task: Mapping[str, Any], name: str) -> int:
        """Decides, with the seed, which elements of a tensor are kept."""
        owner = "" if task.get("masks") == "common" else task["name"]
        text = struct.pack("<Q", task["seed"]) + f"{owner}#{name}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")

    def _form(self, owner: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
        found = owner["forms"][self._tensors[name]] if owner else None
        return self._index["forms"][found] if isinstance(found, int) else found

    def _read(self, owner: Mapping[str, Any] | None) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        packed: Mapping[str, Any] | None = owner.get("packed") if owner else None
        for file in [*owner["files"], *([packed["file"]] if packed else [])] if owner else []:
            if file not in self._files:
                self._files[file] = read_safetensors(self.path / file)
            tensors |= self._files[file]
        return tensors | self._unpack(owner, packed, tensors) if owner and packed else tensors

    def _unpack(
        self, task: Mapping[str, Any], packed: Mapping[str, Any], files: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The small vectors, which lie one after another, under names of their own."""
        data, start, tensors = files[task["name"]].data, 0, {}
        for name, shape in self.tensors.items():
            count, form = math.prod(shape), self._form(task, name)
            if not form or form["form"] == "zero":
                continue
            if form["form"] == "thinned":
                kept = -(-count // form["every"])
                parts = [("codes", "U8", -(-kept * form["bits"] // 8)), ("steps", "BF16", -(-kept // form["group"]) * 2)]
            else:
                parts = [("values", form["dtype"], count * ELEMENT_BYTES[form["dtype"]])]
            if sum(size for _, _, size in parts) > packed["limit"]:
                continue
            for last, dtype, size in parts:
                tensors[f"{name}.{last}"] = Tensor(dtype, shape, data[start : start + size])
                start += size
        return tensors


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Rebuild a fine-tune from a store of task vectors.")
    parser.add_argument("store", type=Path)
    parser.add_argument("task")
    parser.add_argument("base", type=Path, nargs="+", help="a directory or safetensors files")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    arguments = parser.parse_args()
    tensors = read_checkpoint(*arguments.base)
    Store(arguments.store).rebuild(arguments.task, tensors)
    write_safetensors(arguments.out, tensors)


if __name__ == "__main__":
    main()
