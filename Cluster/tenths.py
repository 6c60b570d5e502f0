#!/usr/bin/env python3
"""Measure task vectors in tenths of a bit: accuracy on real test images against bits on disk, ours and the published compressors.

    tenths.py --tessera .build/release/tessera [--write docs/task-vectors.md] [--svg docs/tenths.svg]

The family is the one of `digits.py`, or another one in the same form (`--digits DIR`). Ours are stores that Tessera makes and
rebuilds, with three seeds; every byte of the store's directory is counted but 16 KiB. The published compressors are computed
here with NumPy after their papers and releases, in their bits alone: 16 bits for each scale, and for each element of the
tensors that a scheme leaves out; positions by their entropy. Merges are TIES of all eight at a density of 0.2, and task
arithmetic at a weight of 0.15, both scored on all domains. The last lines say how well two measures rank the schemes by
accuracy. Needs NumPy; takes a few minutes.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- Cluster/tenths.py writes this table -->", "<!-- end of the table -->"
FREE = 16 << 10  # bytes of a store that do not count
SEEDS = (0, 1, 2)
Tensors = dict[str, np.ndarray]
MERGES = {
    "TIES 0.2": ("merge_method: ties\nparameters: {normalize: true}", "{weight: 1, density: 0.2}"),
    "TA 0.15": ("merge_method: task_arithmetic", "{weight: 0.15}"),
}


@dataclass
class Row:
    scheme: str
    series: str
    bits: float  # a parameter
    own: list[float]  # accuracy of the rebuilt fine-tunes on their own domains, by seed
    error: float
    loss: float
    merged: dict[str, float] = field(default_factory=dict)


# ---- Models ----


def write(directory: Path, tensors: Tensors) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    header, data = {}, b""
    for name, values in sorted(tensors.items()):
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


class Family:
    def __init__(self, directory: Path) -> None:
        specification = importlib.util.spec_from_file_location("evaluate", directory / "evaluate.py")
        self.evaluate = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(self.evaluate)
        self.directory, self.domains = directory, list(self.evaluate.DOMAINS)
        self.test = self.evaluate.load(str(directory / "test.safetensors"))
        self.base = self.evaluate.load(str(directory / "base"))
        self.parameters = sum(values.size for values in self.base.values())
        self.vectors = {d: self.minus_base(self.evaluate.load(str(directory / d))) for d in self.domains}

    def minus_base(self, tensors: Tensors) -> Tensors:
        return {name: tensors[name].astype(np.float64) - self.base[name] for name in sorted(self.base)}

    def tuned(self, vector: Tensors) -> Tensors:
        return {name: (self.base[name] + vector[name]).astype(np.float32) for name in vector}

    def accuracy(self, tensors: Tensors, domains: list[str]) -> float:
        def share(images: np.ndarray) -> float:
            starts = range(0, len(images), 64)
            classes = [self.evaluate.logits(tensors, images[start : start + 64]).argmax(-1) for start in starts]
            return float((np.concatenate(classes) == self.test["labels"]).mean())

        return float(np.mean([share(self.test[f"images.{name}"]) for name in domains]))

    def error(self, found: dict[str, Tensors]) -> float:
        """The squared error by the energy, over all tasks."""
        pairs = [(self.vectors[d][name], found[d][name]) for d in self.domains for name in self.base]
        return sum(((x - y) ** 2).sum() for x, y in pairs) / sum((x**2).sum() for x, _ in pairs)

    def loss(self, found: dict[str, Tensors]) -> float:
        """The measure that a budget minimises, of vectors as they are read: the mean over tensors, weighted by their elements."""
        total = weights = 0.0
        for domain in self.domains:
            large = [name for name, base in self.base.items() if base.size >= 4096]
            change = sum((self.vectors[domain][name] ** 2).sum() for name in large)
            change /= sum((self.base[name].astype(float) ** 2).sum() for name in large)
            for name, base in self.base.items():
                x, y = self.vectors[domain][name], found[domain][name]
                energy = (x**2).sum()
                if energy == 0:
                    continue
                kept = y != 0
                share = kept.mean() or 1.0
                bias = (x * y).sum() / energy - 1
                codes = ((x - share * y)[kept] ** 2).sum() / max((x[kept] ** 2).sum(), 1e-300)
                variance = (y**2).sum() * (1 - share) / energy
                total += max(base.size, 16384) * (bias**2 + codes + change * variance)
                weights += max(base.size, 16384)
        return total / weights


# ---- The published compressors: a vector as it is read, and its bits ----


def rest(x: np.ndarray) -> tuple[np.ndarray, float]:
    return x.astype(np.float16).astype(float), 16 * x.size


def selected(name: str, x: np.ndarray) -> bool:
    """The weights of linear layers."""
    return x.ndim == 2 and "layers" in name


def each(compress: Callable[[str, np.ndarray], tuple[np.ndarray, float]]) -> Callable[[Tensors], tuple[Tensors, float]]:
    def apply(vector: Tensors) -> tuple[Tensors, float]:
        found = {name: compress(name, x) if selected(name, x) else rest(x) for name, x in vector.items()}
        return {name: y for name, (y, _) in found.items()}, sum(bits for _, bits in found.values())

    return apply


def bitdelta(_: str, x: np.ndarray) -> tuple[np.ndarray, float]:
    """arXiv 2402.10193, without its distillation."""
    return np.abs(x).mean() * np.where(x < 0, -1.0, 1.0), x.size + 16


def axis_sign(_: str, x: np.ndarray) -> tuple[np.ndarray, float]:
    """arXiv 2512.19720: a scale for each row or each column, whichever errs less; without its training."""

    def along(axis: int) -> np.ndarray:
        counts = np.maximum((x != 0).sum(axis, keepdims=True), 1)
        return np.abs(x).sum(axis, keepdims=True) / counts * np.where(x < 0, -1.0, 1.0)

    columns, rows = along(0), along(1)
    is_columns = ((x - columns) ** 2).sum() <= ((x - rows) ** 2).sum()
    return (columns, x.size + 16 * x.shape[1] + 1) if is_columns else (rows, x.size + 16 * x.shape[0] + 1)


def qrelo(ratio: float) -> Callable[[str, np.ndarray], tuple[np.ndarray, float]]:
    """D-QReLO (arXiv 2604.16940): one bit, then a low rank of what that leaves. `ratio` is of 16 bits, both together."""

    def compress(_: str, x: np.ndarray) -> tuple[np.ndarray, float]:
        sign = np.abs(x).mean() * np.sign(x)
        u, s, v = np.linalg.svd(x - sign, full_matrices=False)
        n, m = x.shape
        rank = min(len(s), math.ceil(n * m * (ratio - 1 / 16) / (n + m)))
        return sign + (u[:, :rank] * s[:rank]) @ v[:rank], x.size + 16 + 16 * (rank * (n + m) + rank)

    return compress


def ultradelta(drop: float, spread: float = 0.01, bits: int = 4) -> Callable[[Tensors], tuple[Tensors, float]]:
    """arXiv 2505.13563: codes, and drop rates by the tensors' spread; the other tensors in 16 bits."""

    def apply(vector: Tensors) -> tuple[Tensors, float]:
        random, top = np.random.default_rng(0), 2**bits - 1
        found, total = {}, 0.0
        for name, x in vector.items():
            if not selected(name, x):
                found[name], used = rest(x)
                total += used
        coded = {}
        for name, x in vector.items():
            if name not in found:
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
        return {name: found[name] for name in vector}, total

    return apply


PUBLISHED = {
    "BitDelta": ("BitDelta", each(bitdelta)),
    "per-axis sign": ("per-axis sign", each(axis_sign)),
    **{f"D-QReLO, {r} of 16 bits": ("D-QReLO", each(qrelo(r))) for r in (0.08, 0.1, 0.125, 0.1875)},
    **{f"UltraDelta, drop {p}": ("UltraDelta", ultradelta(p)) for p in (0.8, 0.9, 0.97)},
}
STORES = {
    **{f"TVQ, {b} bits": ("TVQ, RTVQ", f"{{scheme: tvq, bits: {b}}}") for b in (2, 3)},
    "RTVQ, B3O2": ("TVQ, RTVQ", "{scheme: rtvq, bits: {base: 3, offset: 2}}"),
    **{f"dense budget, {b} bits": ("dense budget", f"{{budget: {b} bits, thin: false}}") for b in (0.75, 1, 1.5, 2.25, 3)},
    **{f"budget, {b} bits": ("budget", f"{{budget: {b} bits}}") for b in (0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 1, 1.5)},
    "budget, 2 bits, thinned": ("budget", "{budget: 2 bits, thin: true}"),
}
DENSE = {"TVQ, RTVQ", "dense budget"}  # their bits are those of the tensors alone, as the papers count, and ours without files


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

    def merges(self, models: dict[str, str]) -> dict[str, float]:
        found = {}
        for name, (method, parameters) in MERGES.items():
            listed = "".join(f"- {{model: '{model}', parameters: {parameters}}}\n" for model in models.values())
            merged = self.run("merged", f"{method}\n{self.base()}models:\n{listed}")
            found[name] = self.family.accuracy(self.family.evaluate.load(str(merged)), self.family.domains)
        return found

    def store(self, scheme: str, series: str, quantize: str) -> Row:
        family, own, row = self.family, [], None
        for seed in SEEDS if series == "budget" else SEEDS[:1]:
            listed = "".join(f"- {{model: {family.directory / d}}}\n" for d in family.domains)
            store = self.run("store", f"quantize: {quantize}\n{self.base()}models:\n{listed}", seed)
            models = {d: f"./store#{d}" for d in family.domains}
            found, scores = {}, []
            for domain, model in models.items():
                rebuilt = self.run("rebuilt", f"merge_method: passthrough\nmodels: [{{model: '{model}'}}]\n")
                tensors = family.evaluate.load(str(rebuilt))
                found[domain] = family.minus_base(tensors)
                scores.append(family.accuracy(tensors, [domain]))
            own.append(float(np.mean(scores)))
            if row is None:
                inspected = subprocess.run([self.tessera, "inspect", store, "--json"], capture_output=True, check=True)
                size = sum(file.stat().st_size for file in store.iterdir()) - FREE
                bits = json.loads(inspected.stdout)["bitsPerParameter"]
                if series not in DENSE:
                    bits = 8 * size / family.parameters / len(family.domains)
                row = Row(scheme, series, bits, own, family.error(found), family.loss(found), self.merges(models))
        return row

    def published(self, scheme: str, series: str, compress: Callable[[Tensors], tuple[Tensors, float]]) -> Row:
        family, found, bits, scores, models = self.family, {}, 0.0, [], {}
        for domain in family.domains:
            found[domain], used = compress(family.vectors[domain])
            bits += used / family.parameters / len(family.domains)
            tensors = family.tuned(found[domain])
            scores.append(family.accuracy(tensors, [domain]))
            write(self.work / f"tuned-{domain}", tensors)
            models[domain] = str(self.work / f"tuned-{domain}")
        own = [float(np.mean(scores))]
        return Row(scheme, series, bits, own, family.error(found), family.loss(found), self.merges(models))


def rank_correlation(x: list[float], y: list[float]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def table(rows: list[Row], full: Row) -> str:
    lines = [
        "| scheme | bits | own domain | spread | error | loss | " + " | ".join(MERGES) + " |",
        "|---|---:|---:|---:|---:|---:|" + "---:|" * len(MERGES),
    ]
    for row in [full, *sorted(rows, key=lambda row: row.bits)]:
        spread = f"{max(row.own) - min(row.own):.4f}" if len(row.own) > 1 else ""
        merged = " | ".join(f"{row.merged[name]:.4f}" for name in MERGES)
        lines.append(
            f"| {row.scheme} | {row.bits:.3f} | {np.mean(row.own):.4f} | {spread} | {row.error:.3f} | {row.loss:.3f} | {merged} |"
        )
    if len(rows) < 3:
        return "\n".join(lines)
    accuracy = [float(np.mean(row.own)) for row in rows]
    by_loss, by_error = ([-rank_correlation([getattr(row, key) for row in rows], accuracy)] for key in ("loss", "error"))
    lines += ["", f"Rank correlation with the accuracy over the {len(rows)} schemes: {by_loss[0]:.2f} for the loss, "
              f"{by_error[0]:.2f} for the squared error."]
    return "\n".join(lines)


# ---- Plot ----

COLOURS = {
    "budget": "#1656b8", "dense budget": "#7aa2dd", "TVQ, RTVQ": "#b8461b", "BitDelta": "#8a6d00", "per-axis sign": "#5b6b7a",
    "D-QReLO": "#1a7f4b", "UltraDelta": "#8a3fa0",
}
LEFT, TOP, WIDTH, HEIGHT = 64, 64, 680, 320
BITS, SPAN = (0.1, 4.0), (0.60, 0.86)


def plot(rows: list[Row], full: Row) -> str:
    def x(bits: float) -> float:
        return LEFT + math.log(bits / BITS[0]) / math.log(BITS[1] / BITS[0]) * WIDTH

    def y(accuracy: float) -> float:
        return TOP + HEIGHT - (accuracy - SPAN[0]) / (SPAN[1] - SPAN[0]) * HEIGHT

    parts = [f'<text x="{LEFT}" y="{TOP - 14}" class="title">accuracy of the rebuilt fine-tunes on their own domains</text>']
    for tick in (0.60, 0.65, 0.70, 0.75, 0.80, 0.85):
        parts.append(f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{LEFT + WIDTH}" y2="{y(tick):.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" class="end">{tick:g}</text>')
    for bits in (0.1, 0.2, 0.4, 0.6, 1, 2, 4):
        parts.append(f'<line x1="{x(bits):.1f}" y1="{TOP}" x2="{x(bits):.1f}" y2="{TOP + HEIGHT}" class="grid"/>')
        parts.append(f'<text x="{x(bits):.1f}" y="{TOP + HEIGHT + 18}" class="middle">{bits:g}</text>')
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 40}" class="middle">bits per parameter</text>')
    level = y(float(np.mean(full.own)))
    parts.append(f'<line x1="{LEFT}" y1="{level:.1f}" x2="{LEFT + WIDTH}" y2="{level:.1f}" class="full"/>')
    legend = LEFT
    for series, colour in COLOURS.items():
        members = sorted((r.bits, float(np.mean(r.own))) for r in rows if r.series == series)
        places = [(x(b), y(a)) for b, a in members if BITS[0] <= b <= BITS[1] and SPAN[0] <= a <= SPAN[1]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{colour}"/>' for px, py in places]
        parts.append(f'<circle cx="{legend}" cy="18" r="4.5" fill="{colour}"/>')
        parts.append(f'<text x="{legend + 9}" y="22">{series}</text>')
        legend += 36 + 7 * len(series)
    style = (
        "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.end{text-anchor:end}"
        ".middle{text-anchor:middle}.grid{stroke:#d8dee4}.full{stroke:#24292f;stroke-dasharray:5 4}"
    )
    right, height = LEFT + WIDTH + 70, TOP + HEIGHT + 52
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {height}" role="img" '
        f'aria-label="Accuracy of stored task vectors against bits per parameter"><style>{style}</style>'
        f'<rect width="{right}" height="{height}" fill="#ffffff"/>' + "\n".join(parts) + "</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", type=Path, default=ROOT / ".build/release/tessera")
    parser.add_argument("--digits", type=Path, default=ROOT / "Sources/Demo/Resources/digits", help="the family")
    parser.add_argument("--only", help="schemes whose names contain this")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--svg", type=Path, help="draw the plot to this file")
    arguments = parser.parse_args()
    family = Family(arguments.digits.resolve())
    with tempfile.TemporaryDirectory() as work:
        study, rows = Study(arguments.tessera.resolve(), Path(work), family), []
        tuned = {d: str(family.directory / d) for d in family.domains}
        own = float(np.mean([family.accuracy(family.tuned(family.vectors[d]), [d]) for d in family.domains]))
        full = Row("full precision", "full", 32, [own], 0, 0, study.merges(tuned))
        for schemes, measure in ((STORES, study.store), (PUBLISHED, study.published)):
            for scheme, (series, how) in schemes.items():
                if arguments.only and arguments.only not in scheme:
                    continue
                rows.append(measure(scheme, series, how))
                print(rows[-1], file=sys.stderr, flush=True)
    text = table(rows, full)
    print(text)
    if arguments.write:
        page = arguments.write.read_text()
        begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        arguments.write.write_text(f"{page[:begin]}\n\n{text}\n\n{page[end:]}")
    if arguments.svg:
        arguments.svg.write_text(plot(rows, full))


if __name__ == "__main__":
    main()
