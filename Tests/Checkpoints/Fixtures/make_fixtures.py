#!/usr/bin/env python3
"""Writes the fixtures with the safetensors library (pip install safetensors==0.8.0); our writer must match them byte for byte."""
import ctypes
import pathlib

from safetensors import TensorSpec, serialize_file

FOLDER = pathlib.Path(__file__).parent
# Bits of an element.
TYPES = {
    "bool": 8, "float4_e2m1fn_x2": 4, "uint8": 8, "int8": 8, "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8,
    "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8, "int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16, "int32": 32,
    "uint32": 32, "float32": 32, "complex64": 64, "float64": 64, "int64": 64, "uint64": 64,
}


def tensor(dtype, shape, seed=0):
    bits = TYPES[dtype] * (2 if dtype.endswith("_x2") else 1)
    for dimension in shape:
        bits *= dimension
    values = bytes((7 * index + seed) % (2 if dtype == "bool" else 251) for index in range(bits // 8))
    return dtype, shape, ctypes.create_string_buffer(values, max(1, len(values))), len(values)


def write(name, tensors):
    specs = {
        key: TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(data), data_len=length)
        for key, (dtype, shape, data, length) in tensors.items()
    }
    serialize_file(specs, FOLDER / f"{name}.safetensors", {"format": "pt"})


write("every-type", {f"{position}.{dtype}": tensor(dtype, [3, 2], position) for position, dtype in enumerate(reversed(TYPES))})
names = ["plain", 'a "quoted" name', "back\\slash", "größe", "重み", "🧩.weight", "slash/name", "Z", "a", "a.b", "a-b"]
write("names", {name: tensor("float32", [2], seed) for seed, name in enumerate(names)})
write("empty-and-scalar", {
    "scalar": tensor("float32", []), "empty": tensor("int64", [0, 4]), "also-empty": tensor("float16", [3, 0]),
    "one": tensor("uint8", [1]),
})
for length in range(8):
    write(f"padding-{length}", {"x" * (length + 1): tensor("bfloat16", [1])})
