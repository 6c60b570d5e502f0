"""A family of small checkpoints, and outputs compared by what they hold."""

import hashlib
import json
import random
import struct
from pathlib import Path

LAYERS, WIDTH = 24, 64
NOT_COMPARED = {"tessera.report.json"}  # it names workers and times
RECIPE = """merge_method: ties
base_model: {family}/base
models:
- model: {family}/tune-0
  parameters: {{weight: 0.6, density: 0.5}}
- model: {family}/tune-1
  parameters: {{weight: 0.4, density: 0.5}}
dtype: float32
"""


def make_family(directory: Path) -> Path:
    """Writes base, tune-0 and tune-1, and returns a recipe that merges them into 24 tensors of 16 KiB."""
    for number, name in enumerate(("base", "tune-0", "tune-1")):
        values = random.Random(number)
        tensors, data = {}, b""
        for layer in range(LAYERS):
            block = struct.pack(f"<{WIDTH * WIDTH}f", *(values.gauss(0, 0.1) for _ in range(WIDTH * WIDTH)))
            span = [len(data), len(data) + len(block)]
            tensors[f"model.layers.{layer}.mlp.weight"] = {"dtype": "F32", "shape": [WIDTH, WIDTH], "data_offsets": span}
            data += block
        header = json.dumps(tensors).encode()
        header += b" " * (-len(header) % 8)
        model = directory / name
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
        (model / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": LAYERS}))
    recipe = directory / "recipe.yml"
    recipe.write_text(RECIPE.format(family=directory))
    return recipe


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each file of an output that is compared."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.iterdir())
        if path.name not in NOT_COMPARED
    }
