#!/usr/bin/env python3
"""Make a family of checkpoints to measure with: a base and several fine-tunes, named and shaped like a real model.

OUT gets base/, tune-0/, tune-1/, ... and family.json, which says what they were made from. The values are random, but
lie like a trained model's: small weights, norms about one, and tunes that differ from the base by heavy-tailed
deltas, so many of them so small that the tune rounds to the base's own value. The same arguments give the same bytes.
"""

import argparse
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from architectures import PRESETS, Tensor

FORMAT_VERSION = 1  # of the values; a family that an older version made is made anew
PART_BYTES = 5_000_000_000
CHUNK_ELEMENTS = (
    1 << 20
)  # few enough that a chunk's arrays stay in the cache while NumPy walks over them again and again
TUNING = 0.025  # the spread of a tune's delta relative to the weight's


@dataclass(frozen=True)
class FamilySpec:
    """What a family is made from; two equal ones give the same bytes."""

    preset: str
    tunes: int = 3
    seed: int = 0
    dtype: str = "bf16"
    version: int = FORMAT_VERSION

    @property
    def models(self) -> list[str]:
        return ["base"] + [f"tune-{index}" for index in range(self.tunes)]


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The values' bit patterns, rounded to nearest, ties to even. Destroys `values`, which spares a copy."""
    bits = values.view(np.uint32)
    rounding = bits >> np.uint32(16)
    rounding &= np.uint32(1)
    rounding += np.uint32(0x7FFF)
    bits += rounding
    return bits.view(np.uint16)[1::2].copy()


@dataclass(frozen=True)
class ElementType:
    safetensors: str
    torch: str
    size: int
    encode: Callable[[np.ndarray], np.ndarray]


DTYPES = {
    "bf16": ElementType("BF16", "bfloat16", 2, to_bfloat16),
    "f16": ElementType("F16", "float16", 2, lambda values: values.astype("<f2")),
    "f32": ElementType("F32", "float32", 4, lambda values: values.astype("<f4")),
}


# ---- Layout ----


@dataclass(frozen=True)
class Part:
    """One safetensors file: its name, its header, and where each tensor's bytes begin in the file."""

    name: str
    header: bytes
    offsets: dict[Tensor, int]
    size: int


def split_into_parts(tensors: list[Tensor], element: ElementType) -> list[list[Tensor]]:
    """Cuts the model, in its own order, where the next tensor would make a part too large."""
    groups: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.elements * element.size
        if groups[-1] and filled + size > PART_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return groups


def lay_out(name: str, tensors: list[Tensor], element: ElementType) -> Part:
    """Tensors lie in order of their names, as the safetensors library writes them."""
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    begins: dict[Tensor, int] = {}
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        begins[tensor] = end
        end += tensor.elements * element.size
        entries[tensor.name] = {
            "dtype": element.safetensors,
            "shape": tensor.shape,
            "data_offsets": [begins[tensor], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return Part(name, header, {tensor: len(header) + begin for tensor, begin in begins.items()}, len(header) + end)


def parts_of(spec: FamilySpec) -> list[Part]:
    element = DTYPES[spec.dtype]
    groups = split_into_parts(PRESETS[spec.preset].tensors(), element)
    if len(groups) == 1:
        return [lay_out("model.safetensors", groups[0], element)]
    return [
        lay_out(f"model-{number:05}-of-{len(groups):05}.safetensors", group, element)
        for number, group in enumerate(groups, start=1)
    ]


# ---- Values ----


def scale_of(tensor: Tensor) -> tuple[float, float]:
    """Mean and spread of a tensor's values."""
    if tensor.name.endswith("norm.weight"):
        return 1.0, 0.1
    if tensor.name.endswith(".bias"):
        return 0.0, 0.5
    return 0.0, 0.02


def chunks_of_models(spec: FamilySpec, tensor: Tensor, begin: int, count: int) -> Iterator[np.ndarray]:
    """The same stretch of the tensor in the base and in each tune, encoded.

    Every chunk has a generator of its own, so that the bytes do not depend on which thread makes it, or when.
    """
    random = np.random.Generator(np.random.SFC64([spec.seed, zlib.crc32(tensor.name.encode()), begin]))
    encode = DTYPES[spec.dtype].encode
    mean, spread = scale_of(tensor)
    base = random.standard_normal(count, dtype=np.float32)
    base *= np.float32(spread)
    base += np.float32(mean)
    yield encode(base.copy())
    for _ in range(spec.tunes):
        tune = random.standard_normal(count, dtype=np.float32)
        tune *= np.abs(tune)  # heavy tails: most entries hardly move, a few move a lot
        tune *= np.float32(spread * TUNING)
        tune += base
        yield encode(tune)


# ---- Files ----


def write_part(spec: FamilySpec, part: Part, directory: Path, pool: ThreadPoolExecutor) -> None:
    """Writes one part of every model: a tune needs the base's values, so they are made together."""
    element = DTYPES[spec.dtype]
    files = [os.open(directory / model / part.name, os.O_WRONLY | os.O_CREAT, 0o644) for model in spec.models]

    def write_chunk(tensor: Tensor, begin: int) -> None:
        count = min(CHUNK_ELEMENTS, tensor.elements - begin)
        offset = part.offsets[tensor] + begin * element.size
        for file, values in zip(files, chunks_of_models(spec, tensor, begin, count), strict=True):
            os.pwrite(file, values.data, offset)

    try:
        for file in files:
            os.ftruncate(file, part.size)
            os.pwrite(file, part.header, 0)
        chunks = [(tensor, begin) for tensor in part.offsets for begin in range(0, tensor.elements, CHUNK_ELEMENTS)]
        for _ in pool.map(lambda chunk: write_chunk(*chunk), chunks):
            pass  # asking for each result raises what its thread raised
    finally:
        for file in files:
            os.close(file)


def write_companions(spec: FamilySpec, parts: list[Part], directory: Path) -> None:
    """The files beside the weights, the same in every model."""
    config = PRESETS[spec.preset].config(DTYPES[spec.dtype].torch)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if len(parts) == 1:
        return
    index = {
        "metadata": {"total_size": sum(part.size - len(part.header) for part in parts)},
        "weight_map": {tensor.name: part.name for part in parts for tensor in part.offsets},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def write_family(spec: FamilySpec, directory: Path) -> None:
    parts = parts_of(spec)
    for model in spec.models:
        (directory / model).mkdir(parents=True)
        write_companions(spec, parts, directory / model)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for part in parts:
            write_part(spec, part, directory, pool)
    (directory / "family.json").write_text(json.dumps(asdict(spec), indent=2) + "\n")


def is_family(spec: FamilySpec, directory: Path) -> bool:
    """Whether `directory` holds just this family, whole."""
    try:
        return json.loads((directory / "family.json").read_text()) == asdict(spec)
    except (OSError, ValueError):
        return False


def ensure_family(spec: FamilySpec, directory: Path) -> bool:
    """Makes the family unless it is there already, and says whether it did. It gets its name once it is whole."""
    if is_family(spec, directory):
        return False
    if directory.exists():
        raise FileExistsError(f"{directory} exists and is another family, or none: remove it, or choose another place")
    unfinished = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
    try:
        write_family(spec, unfinished)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset", choices=PRESETS, default="qwen2.5-0.5b", help="whose names and shapes (default: %(default)s)"
    )
    parser.add_argument("--tunes", type=int, default=3, help="how many fine-tunes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other values (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="type of the elements (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    options = parser.parse_args()
    spec = FamilySpec(options.preset, options.tunes, options.seed, options.dtype)
    try:
        made = ensure_family(spec, options.out)
    except OSError as error:
        raise SystemExit(f"make_family: {error}") from None
    print(f"{options.out}: {'made' if made else 'is there already'}")


if __name__ == "__main__":
    main()
