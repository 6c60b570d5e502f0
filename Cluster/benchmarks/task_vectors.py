#!/usr/bin/env python3
"""Measure stores of task vectors: the paper's schemes beside ours, by bits, error, and accuracy on real test images.

    task_vectors.py --tessera .build/release/tessera [--svg docs/task-vectors.svg] [--json results.json]

Two families are used. *digits*: a small vision transformer and eight fine-tunes that lie in the repository, whose
rebuilt and merged models are scored on test images. *synthetic*: bfloat16 models whose task vectors are drawn with a
given correlation, where only the error counts. Prints tables in Markdown. Needs NumPy.
"""

import argparse
import importlib.util
import json
import math
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Cluster"))
import plot  # noqa: E402
from plot import Axis, Panel  # noqa: E402

DIGITS = ROOT / "Sources/Demo/Resources/digits"


@dataclass(frozen=True)
class Scheme:
    name: str
    group: str  # the series of the plot
    recipe: str | None  # `None` for the checkpoints themselves


def paper_and_ours() -> list[Scheme]:
    found = [Scheme("full precision", "full", None)]
    found += [Scheme(f"TVQ, {b} bits", "TVQ (paper)", f"quantize: {{scheme: tvq, bits: {b}}}") for b in (8, 4, 3, 2)]
    found += [
        Scheme(f"RTVQ, B{b}O2", "RTVQ (paper)", f"quantize: {{scheme: rtvq, bits: {{base: {b}, offset: 2}}}}")
        for b in (3, 4)
    ]
    found += [
        Scheme(f"groups of 128, {b} bits", "groups of 128", f"quantize: {{bits: {b}, group: 128, min_rank: 0}}")
        for b in (2, 3, 4)
    ]
    found += [
        Scheme(f"budget, {b} bits", "budget", f"quantize: {{budget: {b} bits}}") for b in (1.5, 1.75, 2, 2.25, 2.5, 3, 4)
    ]
    found += [
        Scheme(f"budget, 2.25 bits, {s}", "variants", f"quantize: {{budget: 2.25 bits, sensitivity: {s}}}")
        for s in ("relative", "absolute")
    ]
    found.append(Scheme("budget, 2.25 bits, rtvq", "variants", "quantize: {scheme: rtvq, budget: 2.25 bits}"))
    values = "values: {bits: 4, group: 128}"
    found += [
        Scheme(f"magnitude, density {d}, values of 4 bits", "sparse", f"sparsify: {{method: magnitude, density: {d}, {values}}}")
        for d in (0.1, 0.2)
    ]
    for method in ("tall", "emr"):
        found.append(Scheme(f"{method}", "masks", f"sparsify: {{method: {method}}}"))
        found.append(Scheme(f"{method}, values of 4 bits", "masks", f"sparsify: {{method: {method}, {values}}}"))
    return found


def synthetic_schemes() -> list[Scheme]:
    return [
        Scheme("TVQ, 2 bits", "paper", "quantize: {scheme: tvq, bits: 2}"),
        Scheme("groups of 512, 2 bits", "ours", "quantize: {bits: 2, group: 512, min_rank: 0}"),
        Scheme("budget, 2 bits", "ours", "quantize: {budget: 2 bits}"),
        Scheme("budget, 2 bits, absolute", "ours", "quantize: {budget: 2 bits, sensitivity: absolute}"),
        Scheme("RTVQ, B3O2", "paper", "quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}"),
        Scheme("groups of 128, 2 bits", "ours", "quantize: {bits: 2, group: 128, min_rank: 0}"),
        Scheme("budget, 2.25 bits", "ours", "quantize: {budget: 2.25 bits}"),
        Scheme("budget, 2.25 bits, absolute", "ours", "quantize: {budget: 2.25 bits, sensitivity: absolute}"),
        Scheme("budget, 2.25 bits, rtvq", "ours", "quantize: {scheme: rtvq, budget: 2.25 bits}"),
        Scheme("the same, absolute", "ours", "quantize: {scheme: rtvq, budget: 2.25 bits, sensitivity: absolute}"),
        Scheme("TVQ, 3 bits", "paper", "quantize: {scheme: tvq, bits: 3}"),
        Scheme("budget, 3 bits", "ours", "quantize: {budget: 3 bits}"),
    ]


@dataclass
class Result:
    scheme: str
    series: str
    bits: float = 32.0  # a parameter: the bytes of all stored tensors
    directory_bits: float = 32.0  # a parameter: every byte of the store's directory
    error: float = 0.0  # sum of squared errors by sum of squares, over all tasks
    own: float | None = None  # accuracy of the rebuilt fine-tunes, each on its own domain
    merged: dict[str, float] = field(default_factory=dict)  # accuracy of merged models, mean over the domains


# ---- Running ----


class Study:
    def __init__(self, tessera: Path, work: Path) -> None:
        self.tessera = tessera
        self.work = work

    def run(self, name: str, recipe: str) -> Path:
        """Does what the recipe says; `name` may be used again."""
        output, file = self.work / name, self.work / f"{name}.yml"
        shutil.rmtree(output, ignore_errors=True)
        file.write_text(recipe)
        done = subprocess.run([self.tessera, "run", file, output], cwd=self.work, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{recipe}\n{done.stderr}")
        return output

    def store(self, scheme: Scheme, family: Path, tasks: list[str], parameters: int) -> Result:
        models = "".join(f"- {{model: {family / task}}}\n" for task in tasks)
        store = self.run("store", f"{scheme.recipe}\nbase_model: {family / 'base'}\nmodels:\n{models}")
        index = json.loads((store / "task-vectors.json").read_text())
        parts = {file for owner in index["tasks"] + [index.get("shared") or {"files": []}] for file in owner["files"]}
        per_bit = parameters * len(tasks) / 8
        energy = sum(task["energy"] for task in index["tasks"])
        return Result(
            scheme.name,
            scheme.group,
            bits=sum(tensor_bytes(store / part) for part in parts) / per_bit,
            directory_bits=sum(file.stat().st_size for file in store.iterdir()) / per_bit,
            error=sum(task["error"] for task in index["tasks"]) / energy,
        )


def header_of(path: Path) -> tuple[int, dict]:
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return 8 + size, header


def tensor_bytes(path: Path) -> int:
    return path.stat().st_size - header_of(path)[0]


def parameters_of(checkpoint: Path) -> int:
    tensors = header_of(checkpoint / "model.safetensors")[1].values()
    return sum(math.prod(tensor["shape"]) for tensor in tensors if tensor["dtype"] in ("F32", "F16", "BF16"))


# ---- Digits ----

BATCH = 64
MERGES = {
    "TA 0.15": ("merge_method: task_arithmetic", "{weight: 0.15}"),
    "TA 0.25": ("merge_method: task_arithmetic", "{weight: 0.25}"),
    "TIES 0.2": ("merge_method: ties\nparameters: {normalize: true}", "{weight: 1, density: 0.2}"),
}


def evaluator(digits: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("evaluate", digits / "evaluate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def measure_digits(study: Study, digits: Path) -> list[Result]:
    evaluate = evaluator(digits)
    test, domains = evaluate.load(str(digits / "test.safetensors")), evaluate.DOMAINS
    parameters = parameters_of(digits / "base")

    def accuracy(checkpoint: Path, names: list[str]) -> float:
        tensors = evaluate.load(str(checkpoint))
        return float(np.mean([(classes(tensors, test[f"images.{name}"]) == test["labels"]).mean() for name in names]))

    def classes(tensors: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
        """Few images at a time, so that what lies between the layers stays in the cache."""
        starts = range(0, len(images), BATCH)
        return np.concatenate([evaluate.logits(tensors, images[start : start + BATCH]).argmax(-1) for start in starts])

    results = []
    for scheme in paper_and_ours():
        result = Result(scheme.name, scheme.group)
        models = {domain: str(digits / domain) for domain in domains}
        rebuilt = {domain: digits / domain for domain in domains}
        if scheme.recipe:
            result = study.store(scheme, digits, domains, parameters)
            models = {domain: f"./store#{domain}" for domain in domains}
            for domain, model in models.items():
                recipe = f"merge_method: passthrough\nmodels: [{{model: '{model}'}}]\n"
                rebuilt[domain] = study.run(f"rebuilt-{domain}", recipe)
        result.own = float(np.mean([accuracy(rebuilt[domain], [domain]) for domain in domains]))
        for name, (method, arguments) in MERGES.items():
            listed = "".join(f"- {{model: '{model}', parameters: {arguments}}}\n" for model in models.values())
            merged = study.run("merged", f"{method}\nbase_model: {digits / 'base'}\nmodels:\n{listed}")
            result.merged[name] = accuracy(merged, domains)
        results.append(result)
        print(f"{scheme.name}: {result.bits:.4f} bits, {result.own:.4f}", file=sys.stderr)
    return results


def digits_table(results: list[Result]) -> str:
    lines = [
        "| scheme | bits | with files | error | own domain | " + " | ".join(MERGES) + " |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(MERGES),
    ]
    for r in results:
        merged = " | ".join(f"{r.merged[name]:.4f}" for name in MERGES)
        lines.append(
            f"| {r.scheme} | {r.bits:.3f} | {r.directory_bits:.2f} | {r.error:.4f} | {r.own:.4f} | {merged} |"
        )
    return "\n".join(lines)


# ---- Synthetic ----

SHAPES = {f"layers.{layer}.{name}.weight": (256, 512) for layer in range(2) for name in ("attention", "mlp")} | {
    f"layers.{layer}.norm.weight": (512,) for layer in range(2)
}
TASKS = 8
SPREAD = 0.02  # of weights
TUNING = 0.1  # the spread of task vectors relative to the weights'


def to_bfloat16(values: np.ndarray) -> bytes:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def write_checkpoint(directory: Path, tensors: dict[str, np.ndarray]) -> None:
    directory.mkdir(parents=True)
    header, data = {}, b""
    for name, values in sorted(tensors.items()):
        encoded = to_bfloat16(values)
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": [len(data), len(data) + len(encoded)]}
        data += encoded
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_family(directory: Path, correlation: float, tail: str) -> list[str]:
    """Task vectors `τₜ = √ρ·c + √(1 − ρ)·eₜ` on a base, everything rounded to bfloat16."""
    random = np.random.Generator(np.random.SFC64([int(correlation * 100), len(tail)]))
    draw = random.standard_normal if tail == "normal" else lambda shape: random.laplace(size=shape) / math.sqrt(2)
    tasks = [f"task-{number}" for number in range(TASKS)]
    models: dict[str, dict[str, np.ndarray]] = {name: {} for name in ["base", *tasks]}
    for name, shape in SHAPES.items():
        base = SPREAD * random.standard_normal(shape) + (1.0 if len(shape) == 1 else 0.0)
        base = (np.frombuffer(to_bfloat16(base), "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        scale = SPREAD * TUNING * math.exp(random.normal(0, 0.5))  # tensors move by different amounts
        common = draw(shape)
        models["base"][name] = base
        for task in tasks:
            own = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * draw(shape)
            models[task][name] = base + scale * own
    for name, tensors in models.items():
        write_checkpoint(directory / name, tensors)
    return tasks


def measure_synthetic(study: Study) -> dict[str, list[Result]]:
    results = {}
    for tail in ("normal", "laplace"):
        for correlation in (0.0, 0.1, 0.3, 0.6):
            family = study.work / "family"
            shutil.rmtree(family, ignore_errors=True)
            tasks = write_family(family, correlation, tail)
            parameters = parameters_of(family / "base")
            results[f"{tail}, {correlation}"] = [
                study.store(scheme, family, tasks, parameters) for scheme in synthetic_schemes()
            ]
    return results


def synthetic_table(results: dict[str, list[Result]]) -> str:
    lines = ["| scheme | bits | " + " | ".join(results) + " |", "|---|---:|" + "---:|" * len(results)]
    for row in zip(*results.values(), strict=True):
        bits = max(result.bits for result in row)
        lines.append(f"| {row[0].scheme} | {bits:.3f} | " + " | ".join(f"{r.error:.4f}" for r in row) + " |")
    return "\n".join(lines)


# ---- Plot ----

SERIES = {  # colour, and whether points are joined
    "TVQ (paper)": ("#b8461b", True),
    "RTVQ (paper)": ("#8a6d00", False),
    "groups of 128": ("#5b6b7a", True),
    "budget": ("#1656b8", True),
    "sparse": ("#1a7f4b", False),
    "masks": ("#8a3fa0", False),
}


def draw(results: list[Result], file: Path) -> None:
    bits, caption = Axis((1.0, 5.25), (1, 2, 3, 4, 5)), "bits per parameter, all tensors counted"
    accuracies = Axis((0.74, 0.86), (0.74, 0.76, 0.78, 0.8, 0.82, 0.84, 0.86))
    own = Panel("accuracy of the rebuilt fine-tunes, own domain", caption, bits, accuracies)
    errors = Axis((0.005, 2.0), (0.01, 0.03, 0.1, 0.3, 1.0), is_log=True)
    error = Panel("normalised squared error", caption, bits, errors)
    plot.side_by_side(own, error)
    full = next(result for result in results if result.series == "full")
    own.level(full.own, f"full precision {full.own:.4f}")
    best = max(result.own for result in results if result.series in ("sparse", "masks"))
    own.note(f"sparse and masks: below, at most {best:.2f}")
    for series, (colour, is_joined) in SERIES.items():
        members = [result for result in results if result.series == series]
        own.points([(r.bits, r.own) for r in members], colour, is_joined)
        error.points([(r.bits, r.error) for r in members], colour, is_joined)
    label = "Accuracy and error of stored task vectors against bits per parameter"
    plot.draw(file, label, [own, error], {series: colour for series, (colour, _) in SERIES.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", type=Path, default=ROOT / ".build/release/tessera", help="a built tessera")
    parser.add_argument("--digits", type=Path, default=DIGITS, help="the digits family")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--svg", type=Path, help="draw the plot to this file")
    parser.add_argument("--only", choices=["digits", "synthetic"], help="measure one of the families")
    options = parser.parse_args()
    found: dict = {}
    with tempfile.TemporaryDirectory() as work:
        study = Study(options.tessera.resolve(), Path(work))
        if options.only != "synthetic":
            results = measure_digits(study, options.digits.resolve())
            found["digits"] = [asdict(result) for result in results]
            print(digits_table(results), end="\n\n")
            if options.svg:
                draw(results, options.svg)
        if options.only != "digits":
            synthetic = measure_synthetic(study)
            found["synthetic"] = {name: [asdict(result) for result in row] for name, row in synthetic.items()}
            print(synthetic_table(synthetic))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
