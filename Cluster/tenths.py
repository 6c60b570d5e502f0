#!/usr/bin/env python3
"""Measure task vectors in tenths of a bit: accuracy on real tests against bits, ours and the published compressors.

    tenths.py --tessera .build/release/tessera [--write docs/task-vectors.md] [--svg docs/tenths.svg]
    tenths.py --language DIR [--write docs/task-vectors.md] [--svg docs/tenths-language.svg]

The family is the digits of `digits.py`, or another one in the same form (`--digits DIR`), or the language model of
`language.py`. Ours are stores that Tessera makes and rebuilds, with three seeds; every byte of the store's directory is counted
but 16 KiB. Of the published compressors those of signs are stores, too, and the others computed with NumPy (`compressors.py`);
counted are the matrices that they encode. Merges are scored on all tasks: TIES at a density of 0.2 and a lambda of 0.5, task
arithmetic, and TSV. The last line says how well two measures rank the schemes by accuracy. `--rows FILE` keeps what was
measured, one row a line, and measures only what the file lacks. Needs NumPy, and for the language model what `language.py`
needs; takes some minutes.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np  # noqa: E402

import plot  # noqa: E402
from compressors import PUBLISHED, Compressor, Tensors  # noqa: E402
from plot import Axis, Panel  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FREE = 16 << 10  # bytes of a store that do not count
SEEDS = (0, 1, 2)
THINNED = ("budget", "common masks")  # series of stores whose masks depend on the seed


@dataclass
class Row:
    scheme: str
    series: str
    bits: float  # per parameter
    own: list[float]  # accuracy of the rebuilt fine-tunes on their own tasks, by seed
    error: float
    loss: float
    merged: dict[str, float] = field(default_factory=dict)


# ---- Models ----


def write(directory: Path, tensors: Tensors) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    header, end = {}, 0
    for name, values in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + 4 * values.size]}
        end += 4 * values.size
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(np.ascontiguousarray(values, "<f4").tobytes() for _, values in sorted(tensors.items()))


def read(directory: Path) -> Tensors:
    data = (directory / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data, "<f4", math.prod(entry["shape"]), start + entry["data_offsets"][0]).reshape(entry["shape"])
        for name, entry in sorted(header.items())
    }


class Family:
    """A base, its fine-tunes, and what scores them. Merged models are those of `merges`."""

    name: str
    tasks: list[str]
    layers: str  # what the names of the linear layers hold
    merges: dict[str, tuple[str, str]]
    merged_rows: tuple[str, ...] = ()  # the schemes whose tasks are merged; all of them if there are none
    axis: Axis  # of accuracies

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = read(directory / "base")
        self.parameters = sum(values.size for values in self.base.values())
        self.vectors = {task: self.minus_base(read(directory / task)) for task in self.tasks}

    def score(self, tensors: Tensors, task: str) -> float:
        raise NotImplementedError

    def minus_base(self, tensors: Tensors) -> Tensors:
        return {name: tensors[name] - base for name, base in self.base.items()}

    def tuned(self, vector: Tensors) -> Tensors:
        return {name: (self.base[name] + vector[name]).astype(np.float32) for name in vector}

    def accuracy(self, tensors: Tensors, tasks: list[str]) -> float:
        return float(np.mean([self.score(tensors, task) for task in tasks]))

    def error(self, found: dict[str, Tensors]) -> float:
        """The squared error by the energy, over all tasks."""
        pairs = [(self.vectors[task][name], found[task][name]) for task in self.tasks for name in self.base]
        return sum(squares(x - y) for x, y in pairs) / sum(squares(x) for x, _ in pairs)

    def loss(self, found: dict[str, Tensors]) -> float:
        """The measure that a budget minimises, of vectors as they are read: the mean over tensors, weighted by their elements.
        Elements that tuning left alone count for nothing."""
        total = weights = 0.0
        for task in self.tasks:
            vectors = self.vectors[task]
            large = [name for name, base in self.base.items() if base.size >= 4096]
            around = sum(squares(self.base[name][vectors[name] != 0]) for name in large)
            change = sum(squares(vectors[name]) for name in large) / around
            for name, x in vectors.items():
                y, energy, changed = found[task][name], squares(x), np.count_nonzero(x)
                if energy == 0:
                    continue
                kept = y != 0
                share = np.count_nonzero(kept[x != 0]) / changed or 1.0
                bias = np.vdot(x, y) / energy - 1
                codes = squares((x - share * y)[kept]) / max(squares(x[kept]), 1e-300)
                variance = squares(y) * (1 - share) / energy
                total += max(changed, 16384) * (bias**2 + codes + change * variance)
                weights += max(changed, 16384)
        return float(total / weights)


def squares(x: np.ndarray) -> float:
    return float((x.astype(float) ** 2).sum())


def merges(weight: float, tsv: str) -> dict[str, tuple[str, str]]:
    return {
        "TIES 0.2": ("merge_method: ties\nparameters: {normalize: true, lambda: 0.5}", "{weight: 1, density: 0.2}"),
        f"TA {weight:g}": ("merge_method: task_arithmetic", f"{{weight: {weight:g}}}"),
        "TSV": (f"merge_method: tsv\n{tsv}", "{}"),
    }


class Digits(Family):
    name, layers = "digits", "layers"
    merges = merges(0.15, "")
    axis = Axis((0.60, 0.86), (0.60, 0.65, 0.70, 0.75, 0.80, 0.85))

    def __init__(self, directory: Path) -> None:
        specification = importlib.util.spec_from_file_location("evaluate", directory / "evaluate.py")
        self.evaluate = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(self.evaluate)
        self.tasks = list(self.evaluate.DOMAINS)
        self.test = self.evaluate.load(str(directory / "test.safetensors"))
        super().__init__(directory)

    def score(self, tensors: Tensors, task: str) -> float:
        images = self.test[f"images.{task}"]
        starts = range(0, len(images), 64)
        classes = [self.evaluate.logits(tensors, images[start : start + 64]).argmax(-1) for start in starts]
        return float((np.concatenate(classes) == self.test["labels"]).mean())


class Text(Family):
    name, layers = "language", "layer."
    merges = merges(0.3, "parameters: {mean_only: embeddings}")
    merged_rows = ("full precision", "budget, 0.25 bits", "budget 0.25, common masks", "budget, 0.6 bits", "budget, 1.5 bits",
                   "dense budget, 2.25 bits", "TVQ, 3 bits", "BitDelta", "UltraDelta, drop 0.9")
    axis = Axis((0.64, 0.70), (0.64, 0.65, 0.66, 0.67, 0.68, 0.69, 0.70))

    def __init__(self, directory: Path) -> None:
        import language

        self.model, self.tasks = language.Language(directory), list(language.TASKS)
        super().__init__(directory)

    def score(self, tensors: Tensors, task: str) -> float:
        return self.model.accuracy(tensors, task)


# ---- Schemes ----


def stores(family: Family) -> dict[str, tuple[str, str]]:
    """Of each scheme its series, and what a recipe has under `quantize`."""
    tenths = {"digits": (0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 1, 1.5), "language": (0.1, 0.15, 0.25, 0.4, 0.6, 1, 1.5)}
    linear = f"include: {family.layers}"
    return {
        **{f"budget, {b} bits": ("budget", f"{{budget: {b} bits}}") for b in tenths[family.name]},
        **{f"budget {b}, common masks": ("common masks", f"{{budget: {b} bits, masks: common}}") for b in (0.25, 0.6)},
        "budget, 2 bits, thinned": ("budget", "{budget: 2 bits, thin: true}"),
        **{f"dense budget, {b} bits": ("dense budget", f"{{budget: {b} bits, thin: false}}") for b in (0.75, 1, 1.5, 2.25, 3)},
        **{f"TVQ, {b} bits": ("TVQ, RTVQ", f"{{scheme: tvq, bits: {b}}}") for b in (2, 3)},
        "RTVQ, B3O2": ("TVQ, RTVQ", "{scheme: rtvq, bits: {base: 3, offset: 2}}"),
        "BitDelta": ("BitDelta", f"{{scheme: bitdelta, {linear}}}"),
        "BitDelta, embeddings too": ("BitDelta", "{scheme: bitdelta}"),
        "per-axis sign": ("per-axis sign", f"{{scheme: axis_sign, {linear}}}"),
    }


# ---- Running ----


class Study:
    def __init__(self, tessera: Path, work: Path, family: Family) -> None:
        self.tessera, self.work, self.family = tessera, work, family

    def run(self, name: str, recipe: str, seed: int = 0) -> Path:
        output, text = self.work / name, self.work / f"{name}.yml"
        shutil.rmtree(output, ignore_errors=True)
        text.write_text(recipe)
        command = [self.tessera, "run", text, output, "--seed", str(seed), "--progress", "none"]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{recipe}\n{done.stderr}")
        return output

    def base(self) -> str:
        return f"base_model: {self.family.directory / 'base'}\n"

    def merged(self, scheme: str, models: dict[str, str]) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.family.merged_rows and scheme not in self.family.merged_rows:
            return found
        for name, (method, parameters) in self.family.merges.items():
            listed = "".join(f"- {{model: '{model}', parameters: {parameters}}}\n" for model in models.values())
            output = self.run("merged", f"{method}\n{self.base()}models:\n{listed}")
            found[name] = self.family.accuracy(read(output), self.family.tasks)
        return found

    def full(self) -> Row:
        family = self.family
        own = float(np.mean([family.score(family.tuned(family.vectors[task]), task) for task in family.tasks]))
        models = {task: str(family.directory / task) for task in family.tasks}
        return Row("full precision", "full", 32, [own], 0, 0, self.merged("full precision", models))

    def untuned(self) -> Row:
        own = [self.family.accuracy(self.family.base, self.family.tasks)]
        return Row("the base", "base", 0, own, 1, 1, dict.fromkeys(self.family.merges, own[0]))

    def store(self, scheme: str, series: str, quantize: str) -> Row:
        family, own, row = self.family, [], None
        for seed in SEEDS if series in THINNED else SEEDS[:1]:
            listed = "".join(f"- {{model: {family.directory / task}}}\n" for task in family.tasks)
            store = self.run("store", f"quantize: {quantize}\n{self.base()}models:\n{listed}", seed)
            models = {task: f"./store#{task}" for task in family.tasks}
            found, scores = {}, []
            for task, model in models.items():
                tensors = read(self.run("rebuilt", f"merge_method: passthrough\nmodels: [{{model: '{model}'}}]\n"))
                found[task] = family.minus_base(tensors)
                scores.append(family.score(tensors, task))
            own.append(float(np.mean(scores)))
            if row is None:
                error, loss = family.error(found), family.loss(found)
                row = Row(scheme, series, self.bits(store, series), own, error, loss, self.merged(scheme, models))
        return row

    def bits(self, store: Path, series: str) -> float:
        """Of a budget that thins, every byte but some; of others the tensors, as the papers count and we without files."""
        family = self.family
        if series in THINNED:
            size = sum(file.stat().st_size for file in store.iterdir()) - FREE
            return 8 * size / family.parameters / len(family.tasks)
        inspected = subprocess.run([self.tessera, "inspect", store, "--json"], capture_output=True, check=True)
        bits = json.loads(inspected.stdout)["bitsPerParameter"]
        if "sign" not in series and "BitDelta" not in series:
            return bits
        index = json.loads((store / "task-vectors.json").read_text())
        forms = [index["forms"][number]["form"] for number in index["tasks"][0]["forms"]]
        encoded = sum(math.prod(tensor["shape"]) for tensor, form in zip(index["tensors"], forms) if form == "signs")
        return (bits * family.parameters - 32 * (family.parameters - encoded)) / encoded

    def published(self, scheme: str, series: str, compress: Compressor) -> Row:
        family, found, bits, scores, models = self.family, {}, 0.0, [], {}
        for task in family.tasks:
            found[task], used = compress(family.vectors[task])
            bits += used / len(family.tasks)
            tensors = family.tuned(found[task])
            scores.append(family.score(tensors, task))
            write(self.work / f"tuned-{task}", tensors)
            models[task] = str(self.work / f"tuned-{task}")
        own = [float(np.mean(scores))]
        return Row(scheme, series, bits, own, family.error(found), family.loss(found), self.merged(scheme, models))


# ---- Results ----


def rank_correlation(x: list[float], y: list[float]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def table(rows: list[Row], names: list[str]) -> str:
    lines = [
        "| scheme | bits | own task | spread | error | loss | " + " | ".join(names) + " |",
        "|---|---:|---:|---:|---:|---:|" + "---:|" * len(names),
    ]
    for row in sorted(rows, key=lambda row: (row.series not in ("base", "full"), row.bits)):
        spread = f"{max(row.own) - min(row.own):.4f}" if len(row.own) > 1 else ""
        merged = " | ".join(f"{row.merged[name]:.4f}" if name in row.merged else "" for name in names)
        lines.append(
            f"| {row.scheme} | {row.bits:.3f} | {np.mean(row.own):.4f} | {spread} | {row.error:.3f} | {row.loss:.3f} | {merged} |"
        )
    rows = [row for row in rows if row.series not in ("base", "full")]
    if len(rows) < 10:
        return "\n".join(lines)
    accuracy = [float(np.mean(row.own)) for row in rows]
    by_loss, by_error = (-rank_correlation([getattr(row, key) for row in rows], accuracy) for key in ("loss", "error"))
    lines += ["", f"Rank correlation with the accuracy over the {len(rows)} schemes: {by_loss:.2f} for the loss, "
              f"{by_error:.2f} for the squared error."]
    return "\n".join(lines)


COLOURS = {
    "budget": "#1656b8", "common masks": "#3f9fb5", "dense budget": "#7aa2dd", "TVQ, RTVQ": "#b8461b", "BitDelta": "#8a6d00",
    "per-axis sign": "#5b6b7a", "D-QReLO": "#1a7f4b", "UltraDelta": "#8a3fa0",
}


def draw(rows: list[Row], axis: Axis, file: Path) -> None:
    bits = Axis((0.08, 4.0), (0.1, 0.2, 0.4, 0.6, 1, 2, 4), is_log=True)
    panel = Panel("accuracy of the rebuilt fine-tunes on their own tasks", "bits per parameter", bits, axis, width=680)
    for row in rows:
        if row.series in ("base", "full"):
            panel.level(float(np.mean(row.own)), f"{row.scheme} {np.mean(row.own):.4f}")
    for series, colour in COLOURS.items():
        panel.points([(row.bits, float(np.mean(row.own))) for row in rows if row.series == series], colour)
    plot.draw(file, "Accuracy of stored task vectors against bits per parameter", [panel], COLOURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", type=Path, default=ROOT / ".build/release/tessera")
    parser.add_argument("--digits", type=Path, default=ROOT / "Sources/Demo/Resources/digits", help="the family")
    parser.add_argument("--language", type=Path, help="the language model's family in place of the digits")
    parser.add_argument("--only", help="schemes whose names contain this")
    parser.add_argument("--rows", type=Path, help="keep what was measured in this file")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--svg", type=Path, help="draw the plot to this file")
    arguments = parser.parse_args()
    family: Family = Text(arguments.language.resolve()) if arguments.language else Digits(arguments.digits.resolve())
    rows: list[Row] = []
    if arguments.rows and arguments.rows.exists():
        rows = [Row(**json.loads(line)) for line in arguments.rows.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as work:
        study = Study(arguments.tessera.resolve(), Path(work), family)
        wanted: list[tuple[str, Any]] = [("full precision", study.full), ("the base", study.untuned)]
        for schemes, measure in ((stores(family), study.store), (PUBLISHED, study.published)):
            wanted += [
                (scheme, lambda scheme=scheme, series=series, how=how, measure=measure: measure(scheme, series, how))
                for scheme, (series, how) in schemes.items()
                if not arguments.only or arguments.only in scheme
            ]
        for scheme, measure_row in wanted:
            if any(row.scheme == scheme for row in rows):
                continue
            rows.append(measure_row())
            print(rows[-1], file=sys.stderr, flush=True)
            if arguments.rows:
                with arguments.rows.open("a") as file:
                    file.write(json.dumps(asdict(rows[-1])) + "\n")
    text = table(rows, list(family.merges))
    print(text)
    if arguments.write:
        page = arguments.write.read_text()
        mark = f"<!-- Cluster/tenths.py writes this table: {family.name} -->"
        begin = page.index(mark) + len(mark)
        end = page.index("<!-- end of the table -->", begin)
        arguments.write.write_text(f"{page[:begin]}\n\n{text}\n\n{page[end:]}")
    if arguments.svg:
        draw(rows, family.axis, arguments.svg)


if __name__ == "__main__":
    main()
