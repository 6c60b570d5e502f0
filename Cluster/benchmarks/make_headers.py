#!/usr/bin/env python3
"""Make checkpoints that are only headers, and show what stores of their task vectors would take.

    make_headers.py OUT [--tasks 20]              # OUT/base, OUT/task-00, ...: ViT-L/14's image tower, sparse files
    make_headers.py OUT --table --tessera PATH    # and the published table of storage, as `tessera plan` predicts it
    make_headers.py OUT --shape moe --tasks 3     # DeepSeek V3's 45,395 tensors in 270 parts of bfloat16, for planning times
    make_headers.py OUT --shape many --tasks 1    # 200,000 small tensors in one file

The files have the size of real ones and take a few kilobytes: behind the header there is a hole. `tessera plan` reads
no more than headers, so that it tells the size of a store that nobody has to make.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

WIDTH, LAYERS, PATCH, EMBEDDING = 1024, 24, 14, 768
POSITIONS = (224 // PATCH) ** 2 + 1
CELLS = {
    "INT8": "{scheme: tvq, bits: 8, FILTER}",
    "INT4": "{scheme: tvq, bits: 4, FILTER}",
    "INT3": "{scheme: tvq, bits: 3, FILTER}",
    "INT2": "{scheme: tvq, bits: 2, FILTER}",
    "B3O2": "{scheme: rtvq, bits: {base: 3, offset: 2}, FILTER}",
    "B3O2, rest bf16": "{scheme: rtvq, bits: {base: 3, offset: 2}, rest: bfloat16, FILTER}",
    "2 bits, groups of 128": "{scheme: tvq, bits: 2, group: 128, FILTER}",
}
FILTER = "exclude: [positional_embedding, visual.proj]"  # which the paper's release leaves alone


def shapes() -> dict[str, tuple[int, ...]]:
    """The image tower of OpenAI's CLIP ViT-L/14, by its own names: 303 966 208 parameters."""
    found: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (POSITIONS, WIDTH),
        "visual.proj": (WIDTH, EMBEDDING),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
    }
    for norm in ("ln_pre", "ln_post"):
        found |= {f"visual.{norm}.{part}": (WIDTH,) for part in ("weight", "bias")}
    for layer in range(LAYERS):
        block = f"visual.transformer.resblocks.{layer}"
        for norm in ("ln_1", "ln_2"):
            found |= {f"{block}.{norm}.{part}": (WIDTH,) for part in ("weight", "bias")}
        for name, rows, columns in (
            ("attn.in_proj_", 3 * WIDTH, WIDTH),
            ("attn.out_proj.", WIDTH, WIDTH),
            ("mlp.c_fc.", 4 * WIDTH, WIDTH),
            ("mlp.c_proj.", WIDTH, 4 * WIDTH),
        ):
            found |= {f"{block}.{name}weight": (rows, columns), f"{block}.{name}bias": (rows,)}
    return found


def mixture_of_experts() -> dict[str, tuple[int, ...]]:
    """DeepSeek V3: 671 billion parameters, nearly all of them in 58 layers of 256 experts."""
    hidden, heads, experts = 7168, 128, 256
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (129280, hidden)}
    for layer in range(61):
        block = f"model.layers.{layer}"
        found |= {f"{block}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for name, *shape in (
            ("q_a_proj", 1536, hidden),
            ("q_a_layernorm", 1536),
            ("q_b_proj", heads * 192, 1536),
            ("kv_a_proj_with_mqa", 576, hidden),
            ("kv_a_layernorm", 512),
            ("kv_b_proj", heads * 256, 512),
            ("o_proj", hidden, heads * 128),
        ):
            found[f"{block}.self_attn.{name}.weight"] = tuple(shape)
        widths = {"mlp": 18432} if layer < 3 else {f"mlp.experts.{expert}": 2048 for expert in range(experts)}
        if layer >= 3:
            widths["mlp.shared_experts"] = 2048
            found |= {f"{block}.mlp.gate.weight": (experts, hidden), f"{block}.mlp.gate.e_score_correction_bias": (experts,)}
        for module, width in widths.items():
            found |= {f"{block}.{module}.{part}_proj.weight": (width, hidden) for part in ("gate", "up")}
            found[f"{block}.{module}.down_proj.weight"] = (hidden, width)
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (129280, hidden)}


def many() -> dict[str, tuple[int, ...]]:
    return {f"model.layers.{number // 100}.expert.{number % 100}.weight": (64, 64) for number in range(200_000)}


def write_part(path: Path, tensors: list[tuple[str, tuple[int, ...]]], width: int) -> None:
    header, end = {}, 0
    for name, shape in tensors:
        size = width * math.prod(shape)
        header[name] = {"dtype": {2: "BF16", 4: "F32"}[width], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        os.ftruncate(file.fileno(), 8 + len(text) + end)


def write_checkpoint(directory: Path, tensors: dict[str, tuple[int, ...]], width: int, part_bytes: float = math.inf) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    parts: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    total = filled = 0
    for name, shape in tensors.items():
        size = width * math.prod(shape)
        if parts[-1] and filled + size > part_bytes:
            parts.append([])
            filled = 0
        parts[-1].append((name, shape))
        filled += size
        total += size
    if len(parts) == 1:
        return write_part(directory / "model.safetensors", sorted(parts[0]), width)
    places = {}
    for number, part in enumerate(parts):
        file = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        write_part(directory / file, part, width)
        places |= {name: file for name, _ in part}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def planned_bytes(tessera: Path, work: Path, quantize: str, tasks: int) -> int:
    models = "".join(f"- {{model: ./task-{task:02}}}\n" for task in range(tasks))
    recipe = work / "recipe.yml"
    recipe.write_text(f"quantize: {quantize}\nbase_model: ./base\nmodels:\n{models}")
    done = subprocess.run([tessera, "plan", "--json", "recipe.yml"], cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return sum(part["bytes"] for part in json.loads(done.stdout)["parts"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--shape", choices=["clip", "moe", "many"], default="clip")
    parser.add_argument("--table", action="store_true", help="print what `tessera plan` predicts for 8, 14 and 20 tasks")
    parser.add_argument("--tessera", type=Path, default=Path(__file__).resolve().parents[2] / ".build/release/tessera")
    options = parser.parse_args()
    tensors, width = {"clip": (shapes, 4), "moe": (mixture_of_experts, 2), "many": (many, 2)}[options.shape]
    for name in ["base"] + [f"task-{task:02}" for task in range(options.tasks)]:
        write_checkpoint(options.out / name, tensors(), width, part_bytes=5e9 if options.shape == "moe" else math.inf)
    parameters = sum(math.prod(shape) for shape in tensors().values())
    print(f"{parameters} parameters in {len(tensors())} tensors, {options.tasks} fine-tunes", file=sys.stderr)
    if not options.table:
        return
    print("| tasks | FP32 | " + " | ".join(CELLS) + " |\n|---|---:|" + "---:|" * len(CELLS))
    for tasks in (8, 14, 20):
        cells = [
            planned_bytes(options.tessera.resolve(), options.out, quantize.replace("FILTER", FILTER), tasks)
            for quantize in CELLS.values()
        ]
        full = tasks * (options.out / "base/model.safetensors").stat().st_size
        print(f"| {tasks} | {full / 1e9:.2f} | " + " | ".join(f"{bytes_ / 1e9:.4f}" for bytes_ in cells) + " |")


if __name__ == "__main__":
    main()
